// Maps is a webhook by hand: net/http, encoding/json into maps, and operations for just what changes.
//
//	maps INJECTION CERT KEY PORT
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

type object = map[string]any

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

var injection struct {
	Prefix      []string
	Env         []any
	Mount       any
	Volume      any
	Annotations map[string]string
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = json.Unmarshal(text, &injection)
	}
	if err == nil {
		http.HandleFunc("/mutate", mutate)
		err = http.ListenAndServeTLS("127.0.0.1:"+os.Args[4], os.Args[2], os.Args[3], nil)
	}
	fmt.Fprintln(os.Stderr, "maps:", err)
	os.Exit(1)
}

func mutate(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var review object
	if err != nil || json.Unmarshal(body, &review) != nil {
		http.Error(w, "no review", http.StatusBadRequest)
		return
	}
	request, _ := review["request"].(object)
	pod, _ := request["object"].(object)
	response := object{"uid": request["uid"], "allowed": true}
	if patch := operations(pod); patch != nil {
		encoded, _ := json.Marshal(patch)
		response["patchType"], response["patch"] = "JSONPatch", encoded
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(object{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
	})
}

func operations(pod object) (patch []operation) {
	spec, _ := pod["spec"].(object)
	containers, _ := spec["containers"].([]any)
	for i, each := range containers {
		container, _ := each.(object)
		command, _ := container["command"].([]any)
		if !plane(command) {
			continue
		}
		path := fmt.Sprintf("/spec/containers/%d", i)
		patch = appended(patch, container, path, "env", injection.Env...)
		patch = appended(patch, container, path, "volumeMounts", injection.Mount)
		for j := range injection.Prefix {
			patch = append(patch, operation{"add", path + "/command/0", injection.Prefix[len(injection.Prefix)-1-j]})
		}
	}
	if patch == nil {
		return nil
	}
	patch = appended(patch, spec, "/spec", "volumes", injection.Volume)
	metadata, _ := pod["metadata"].(object)
	if metadata["annotations"] == nil {
		return append(patch, operation{"add", "/metadata/annotations", injection.Annotations})
	}
	for key, value := range injection.Annotations {
		patch = append(patch, operation{"add", "/metadata/annotations/" + strings.ReplaceAll(key, "/", "~1"), value})
	}
	return patch
}

func appended(patch []operation, holder object, path, field string, values ...any) []operation {
	if holder[field] == nil {
		return append(patch, operation{"add", path + "/" + field, values})
	}
	for _, value := range values {
		patch = append(patch, operation{"add", path + "/" + field + "/-", value})
	}
	return patch
}

func plane(command []any) bool {
	for _, word := range command {
		if text, _ := word.(string); strings.Contains(text, "docker-entrypoint-api") {
			return true
		}
	}
	return false
}
