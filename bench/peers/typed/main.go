// Typed is a webhook as users of controller-runtime write it: the pod as a type, changed in place, compared as a whole.
//
//	typed INJECTION CERT-DIR PORT
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

type handler struct {
	decoder     admission.Decoder
	Prefix      []string
	Env         []corev1.EnvVar
	Mount       corev1.VolumeMount
	Volume      corev1.Volume
	Annotations map[string]string
}

func (h *handler) Handle(_ context.Context, request admission.Request) admission.Response {
	pod := &corev1.Pod{}
	if err := h.decoder.Decode(request, pod); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	changed := false
	for i := range pod.Spec.Containers {
		container := &pod.Spec.Containers[i]
		if !strings.Contains(strings.Join(container.Command, " "), "docker-entrypoint-api") {
			continue
		}
		changed = true
		container.Env = append(container.Env, h.Env...)
		container.VolumeMounts = append(container.VolumeMounts, h.Mount)
		container.Command = append(append([]string{}, h.Prefix...), container.Command...)
	}
	if !changed {
		return admission.Allowed("not Plane's")
	}
	pod.Spec.Volumes = append(pod.Spec.Volumes, h.Volume)
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	for key, value := range h.Annotations {
		pod.Annotations[key] = value
	}
	changedPod, err := json.Marshal(pod)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, changedPod)
}

func main() {
	scheme := runtime.NewScheme()
	err := corev1.AddToScheme(scheme)
	its := &handler{decoder: admission.NewDecoder(scheme)}
	text, readErr := os.ReadFile(os.Args[1])
	for _, each := range []error{err, readErr, json.Unmarshal(text, its)} {
		if each != nil {
			fmt.Fprintln(os.Stderr, "typed:", each)
			os.Exit(1)
		}
	}
	port, _ := strconv.Atoi(os.Args[3])
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: os.Args[2]})
	server.Register("/mutate", &webhook.Admission{Handler: its})
	fmt.Fprintln(os.Stderr, "typed:", server.Start(context.Background()))
	os.Exit(1)
}
