{{- /*
The pod template of one workload. `.name` and `.image`; `.command` and `.args` if it has any; `.django` if it is one of
the backend's; `.serves` if it answers on port 8000; `.s3ca` if it mounts the authority; `.root` is the chart's scope.
*/ -}}
{{- define "lab.pod" -}}
metadata:
  namespace: {{ .root.Release.Namespace }}
  labels:
    app.name: {{ .root.Release.Namespace }}-{{ .root.Release.Name }}-{{ .name }}
  {{- if .root.Values.timestamp }}
  annotations:
    timestamp: {{ now | quote }}
  {{- end }}
spec:
  {{- if .root.Values.restricted }}
  securityContext:
    fsGroup: 1000
    runAsGroup: 1000
    runAsNonRoot: true
    runAsUser: 1000
    seccompProfile: {type: RuntimeDefault}
  {{- end }}
  {{- if or .s3ca .root.Values.tmp }}
  volumes:
    {{- if .s3ca }}
    - name: s3-custom-ca
      projected:
        sources:
          - secret: {name: {{ .root.Release.Name }}-s3-ca, items: [{key: ca.crt, path: ca.crt}]}
    {{- end }}
    {{- if .root.Values.tmp }}
    - {name: tmp, emptyDir: {}}
    {{- end }}
  {{- end }}
  {{- if .job }}
  restartPolicy: OnFailure
  {{- end }}
  serviceAccountName: {{ .root.Release.Name }}-srv-account
  containers:
    - name: {{ .root.Release.Name }}-{{ .name }}
      image: {{ .image }}:{{ .root.Values.tag }}
      imagePullPolicy: Always
      stdin: true
      tty: true
      {{- with .command }}
      command: {{ toJson . }}
      {{- end }}
      {{- with .args }}
      args: {{ toJson . }}
      {{- end }}
      resources:
        requests: {cpu: 50m, memory: 50Mi}
        limits:
          cpu: {{ .root.Values.cpuLimit | quote }}
          {{- with .root.Values.memoryLimit }}
          memory: {{ . }}
          {{- end }}
      {{- if .django }}
      envFrom:
        - configMapRef: {name: {{ .root.Release.Name }}-app-vars, optional: false}
        - secretRef: {name: {{ .root.Values.externalSecret | default (print .root.Release.Name "-app-secrets") }}, optional: false}
      {{- with .root.Values.extraEnv }}
      env:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- if or .s3ca .root.Values.tmp }}
      volumeMounts:
        {{- if .s3ca }}
        - {name: s3-custom-ca, mountPath: /s3-custom-ca, readOnly: true}
        {{- end }}
        {{- if .root.Values.tmp }}
        - {name: tmp, mountPath: /tmp}
        {{- end }}
      {{- end }}
      {{- if .serves }}
      readinessProbe:
        httpGet: {path: /, port: 8000}
        failureThreshold: 30
        periodSeconds: {{ .root.Values.readinessPeriod }}
      {{- end }}
      {{- if .root.Values.restricted }}
      securityContext:
        allowPrivilegeEscalation: false
        capabilities: {drop: [ALL]}
        runAsNonRoot: true
        runAsUser: 1000
        seccompProfile: {type: RuntimeDefault}
        {{- if .root.Values.readOnlyRoot }}
        readOnlyRootFilesystem: true
        {{- end }}
      {{- end }}
{{- end -}}
