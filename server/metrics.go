package server

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, hosts *Hosts) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quorate_http_requests_total",
			Help: "Requests to the API, by route, method and code of the answer.",
		}, []string{"route", "method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "quorate_http_request_duration_seconds",
			Help:    "Time to answer a request to the API, by route; streams are not counted.",
			Buckets: []float64{0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 30},
		}, []string{"route"}),
	}
	if reg == nil {
		return m, nil
	}
	agents := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "quorate_agents_connected",
		Help: "Hosts whose agent holds its channel to this server open.",
	}, func() float64 { return float64(hosts.connectedCount()) })
	for _, c := range []prometheus.Collector{m.requests, m.seconds, agents} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

// observe counts an answered request under the route that took it, so that what
// callers make up can't become label values.
func (m *metrics) observe(r *http.Request, code int, began time.Time) {
	route := r.Pattern
	if route == "" || route == "/" {
		route = "none"
	}
	method := r.Method
	if route == "none" {
		method = "any"
	}
	m.requests.WithLabelValues(route, method, strconv.Itoa(code)).Inc()
	if !watching(r) {
		m.seconds.WithLabelValues(route).Observe(time.Since(began).Seconds())
	}
}

// readMetrics tells the server's own metrics to Prometheus.
func (s *Server) readMetrics(w *response, r *http.Request, _ caller) error {
	if s.opts.Gatherer == nil {
		return unavailable("this server keeps no metrics")
	}
	promhttp.HandlerFor(s.opts.Gatherer, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}
