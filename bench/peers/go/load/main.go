// Load sends one review again and again over kept TLS connections, and prints as JSON what it met.
//
//	load URL FILE CONNECTIONS SECONDS
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: load URL FILE CONNECTIONS SECONDS")
		os.Exit(2)
	}
	body, err := os.ReadFile(os.Args[2])
	check(err)
	connections, err := strconv.Atoi(os.Args[3])
	check(err)
	seconds, err := strconv.ParseFloat(os.Args[4], 64)
	check(err)

	var wait sync.WaitGroup
	found := make([][]time.Duration, connections)
	failed := make([]int, connections)
	clients := make([]*http.Client, connections)
	for i := range clients { // one connection each, opened before the clock starts
		clients[i] = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		check(post(clients[i], os.Args[1], body))
	}
	began := time.Now()
	for i := range clients {
		wait.Add(1)
		go func() {
			defer wait.Done()
			for time.Since(began).Seconds() < seconds {
				start := time.Now()
				if post(clients[i], os.Args[1], body) != nil {
					failed[i]++
				}
				found[i] = append(found[i], time.Since(start))
			}
		}()
	}
	wait.Wait()
	lasted := time.Since(began).Seconds()
	all := slices.Concat(found...)
	slices.Sort(all)
	failures := 0
	for _, each := range failed {
		failures += each
	}
	quantile := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Nanoseconds()) / 1000 }
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"reviews": len(all), "failed": failures, "seconds": lasted,
		"p50": quantile(0.5), "p99": quantile(0.99), "worst": quantile(1), // microseconds
	}))
}

func post(client *http.Client, url string, body []byte) error {
	answer, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d", answer.StatusCode)
	}
	return nil
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}
