{{- define "plane-webhook.metadata" -}}
name: plane-webhook
namespace: {{ .Release.Namespace | quote }}
labels:
  app.kubernetes.io/name: plane-webhook
{{- end }}

{{- /* What the server listens on: its defaults, but where it shares the node's ports. */}}
{{- define "plane-webhook.httpsPort" -}}
{{ if .Values.hostNetwork.enabled }}{{ .Values.hostNetwork.httpsPort }}{{ else }}8443{{ end }}
{{- end }}
{{- define "plane-webhook.metricsPort" -}}
{{ if .Values.hostNetwork.enabled }}{{ .Values.hostNetwork.metricsPort }}{{ else }}9090{{ end }}
{{- end }}

{{- /* As webhook/cluster/registration.py makes it: tests/e2e/test_chart.py holds the two together, to the byte. */}}
{{- define "plane-webhook.condition" -}}
{{- $images := list "live-commercial" "plane-pi-commercial" "silo-commercial" }}
{{- $default := list "makeplane/backend-commercial" "makeplane/plane-backend" }}
{{- $images = concat $images (get .Values.configuration "images" | default (ternary list $default (hasKey .Values.configuration "images"))) }}
{{- range $profile := .Values.configuration.namespaces }}
{{- $images = concat $images ($profile.images | default list) }}
{{- end }}
{{- $ours := list }}
{{- range $images | sortAlpha | uniq }}
{{- $ours = append $ours (printf "c.image.contains('%s')" .) }}
{{- end }}
{{- $any := list (printf "(has(c.image) && (%s))" (join " || " $ours)) }}
{{- range list "command" "args" }}
{{- $any = append $any (printf "(has(c.%[1]s) && [c.%[1]s.join(' ')].exists(text, text.contains('docker-ent') && text.contains('ntrypoint-')))" .) }}
{{- end }}
{{- $places := list }}
{{- range list "containers" "initContainers" }}
{{- $places = append $places (printf "(has(object.spec.%[1]s) && object.spec.%[1]s != null && object.spec.%[1]s.exists(c, %[2]s))" . (join " || " $any)) }}
{{- end }}
{{- printf "has(object.spec) && (%s)" (join " || " $places) }}
{{- end }}

{{- define "plane-webhook.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "plane-webhook.podSecurityContext" -}}
runAsNonRoot: true
{{- if not .Values.openshift }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "plane-webhook.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end }}

{{- /* Of (list GIVEN OURS): what a value gives, which wins, and ours. */}}
{{- define "plane-webhook.with" -}}
{{- toYaml (merge dict (first . | default dict) (last .)) }}
{{- end }}

{{- /* Of (list . PORT): the annotations of a Deployment's pods. */}}
{{- define "plane-webhook.podAnnotations" -}}
{{- $values := (first .).Values }}
{{- if hasKey ($values.podAnnotations | default dict) "plane-webhook/configuration" }}
{{- fail "podAnnotations has plane-webhook/configuration, by which a changed configuration rolls the pods. Leave it out" }}
{{- end }}
{{- /* The configuration is read at the start: a changed one rolls the pods. */}}
{{- $ours := dict "plane-webhook/configuration" (toYaml $values.configuration | sha256sum) }}
{{- if not $values.serviceMonitor.enabled }}
{{- $ours = merge $ours (dict "prometheus.io/scrape" "true" "prometheus.io/port" (last .)) }}
{{- end }}
{{- include "plane-webhook.with" (list $values.podAnnotations $ours) }}
{{- end }}

{{- /* Where a pod runs, and how its image is pulled. */}}
{{- define "plane-webhook.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
