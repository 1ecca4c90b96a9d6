package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/quorate/quorate/api/v1alpha1"
	"github.com/quorate/quorate/store/remote/wire"
)

// route is one thing that can be asked.
type route struct {
	method   string
	path     string
	resource string
	verb     verb
	// endless routes stream; the others are answered within requestTime.
	endless bool
	// upload routes take more than maxBody.
	upload bool
	// stranger routes are for those who have no token yet.
	stranger bool
	handle   func(w *response, r *http.Request, c caller) error
}

// routes lists all there is.
func (s *Server) routes() []route {
	var all []route
	for _, kind := range v1alpha1.Kinds() {
		all = append(all, s.objectRoutes(kind)...)
	}
	cluster := kindItem(v1alpha1.KindCluster)
	member := kindItem(v1alpha1.KindMember)
	agent := wire.PathAgents + "/{host}"
	return append(all,
		route{method: "GET", path: cluster + "/plan", resource: "etcdclusters", verb: verbPlan, handle: s.plan},
		route{method: "GET", path: cluster + "/view", resource: "etcdclusters", verb: verbGet, handle: s.view},
		route{method: "POST", path: cluster + "/plan", resource: "etcdclusters", verb: verbPlan, handle: s.planProposed},
		route{method: "GET", path: cluster + "/placement", resource: "etcdclusters", verb: verbPlan, handle: s.placement},
		route{method: "POST", path: cluster + "/placement", resource: "etcdclusters", verb: verbPlan, handle: s.placementProposed},
		route{method: "POST", path: cluster + "/accept", resource: "etcdclusters", verb: verbAccept, handle: s.accept},
		route{method: "POST", path: cluster + "/clientcertificate", resource: "etcdclusters", verb: verbClient, handle: s.clientCertificate},
		route{method: "POST", path: kindItem(v1alpha1.KindRestore) + "/preview", resource: "etcdrestores", verb: verbPlan, endless: true, handle: s.previewRestore},
		route{method: "POST", path: member + "/certificate", resource: "etcdmembers", verb: verbCertificate, handle: s.memberCertificate},
		route{method: "GET", path: member + "/log", resource: "etcdmembers", verb: verbLog, endless: true, handle: s.memberLog},
		route{method: "GET", path: member + "/metrics", resource: "etcdmembers", verb: verbMetrics, handle: s.memberMetrics},
		route{method: "GET", path: member + "/snapshot", resource: "etcdmembers", verb: verbSnapshot, endless: true, handle: s.memberSnapshot},
		route{method: "POST", path: member + "/kill", resource: "etcdmembers", verb: verbKill, handle: s.killMember},
		route{method: "POST", path: kindItem(v1alpha1.KindHost) + "/load", resource: "etcdhosts", verb: verbLoad, endless: true, handle: s.driveLoad},
		route{method: "POST", path: kindItem(v1alpha1.KindHost) + "/jointoken", resource: "jointokens", verb: verbCreate, handle: s.createJoinToken},
		route{method: "POST", path: kindItem(v1alpha1.KindHost) + "/check", resource: "etcdhosts", verb: verbCheck, handle: s.checkHost},
		route{method: "GET", path: wire.PathEvents, resource: "events", verb: verbList, handle: s.events},
		route{method: "POST", path: wire.PathEvents, resource: "events", verb: verbCreate, handle: s.recordEvent},
		route{method: "GET", path: wire.PathReleases, resource: "releases", verb: verbList, handle: s.listReleases},
		route{method: "GET", path: wire.PathReleases + "/{digest}", resource: "releases", verb: verbGet, endless: true, handle: s.readRelease},
		route{method: "POST", path: wire.PathReleases, resource: "releases", verb: verbCreate, endless: true, upload: true, handle: s.addRelease},
		route{method: "GET", path: wire.PathUsage, resource: "fleet", verb: verbGet, handle: s.usage},
		route{method: "GET", path: wire.PathRebalance, resource: "fleet", verb: verbGet, handle: s.rebalance},
		route{method: "GET", path: wire.PathMetrics, resource: "metrics", verb: verbGet, handle: s.readMetrics},
		route{method: "GET", path: wire.PathVersion, resource: "version", verb: verbGet, handle: s.version},
		route{method: "GET", path: wire.PathOpenAPI, resource: "documentation", verb: verbGet, handle: s.openAPI},
		route{method: "GET", path: wire.PathDocs, resource: "documentation", verb: verbGet, handle: s.docs},
		route{method: "GET", path: wire.PathDocFiles, resource: "documentation", verb: verbGet, handle: s.docs},
		route{method: "POST", path: wire.PathBackup, resource: "backup", verb: verbCreate, endless: true, handle: s.backup},
		route{method: "POST", path: wire.PathSealingKey, resource: "sealingkey", verb: verbUpdate, endless: true, handle: s.rotateKey},
		route{method: "POST", path: wire.PathSessions, resource: "sessions", verb: verbCreate, handle: s.exchange},
		route{method: "POST", path: wire.PathLinks, resource: "loginlinks", verb: verbCreate, handle: s.createLink},
		route{method: "GET", path: wire.PathSession, resource: "sessions", verb: verbGet, handle: s.whoAmI},
		route{method: "DELETE", path: wire.PathSession, resource: "sessions", verb: verbDelete, handle: s.logOut},
		route{method: "GET", path: agent + "/requests", resource: "agents", verb: verbChannel, endless: true, handle: s.agentRequests},
		route{method: "POST", path: agent + "/responses/{id}", resource: "agents", verb: verbChannel, endless: true, upload: true, handle: s.agentResponse},
		route{method: "POST", path: agent + "/join", resource: "agents", verb: verbJoin, stranger: true, handle: s.join},
		route{method: "POST", path: agent + "/certificate", resource: "agents", verb: verbRenew, handle: s.renew},
		route{method: "POST", path: agent + "/heartbeat", resource: "agents", verb: verbChannel, handle: s.agentHeartbeat},
	)
}

// kindCollection is the pattern of a kind's objects in one namespace.
func kindCollection(kind v1alpha1.Kind) string {
	if kind.Namespaced {
		return wire.KindRoot(kind) + "/namespaces/{namespace}/" + kind.Plural
	}
	return wire.KindRoot(kind) + "/" + kind.Plural
}

func kindItem(kind v1alpha1.Kind) string { return kindCollection(kind) + "/{name}" }

// objectRoutes are those that every kind has. Each is registered with the kind's
// plural spelled out, so that patterns can't be ambiguous.
func (s *Server) objectRoutes(kind v1alpha1.Kind) []route {
	res := kind.Plural
	all := []route{
		{method: "GET", path: kindCollection(kind), resource: res, verb: verbList, handle: s.list(kind)},
		{method: "POST", path: kindCollection(kind), resource: res, verb: verbCreate, handle: s.create(kind)},
		{method: "GET", path: kindItem(kind), resource: res, verb: verbGet, handle: s.get(kind)},
		{method: "PUT", path: kindItem(kind), resource: res, verb: verbUpdate, handle: s.update(kind)},
		{method: "DELETE", path: kindItem(kind), resource: res, verb: verbDelete, handle: s.remove(kind)},
	}
	if kind.Namespaced {
		all = append(all, route{method: "GET", path: wire.KindPath(kind, ""), resource: res, verb: verbList, handle: s.list(kind)})
	}
	if hasStatus(kind) {
		all = append(all, route{method: "PUT", path: kindItem(kind) + "/status", resource: res, verb: verbStatus, handle: s.updateStatus(kind)})
	}
	return all
}

// build makes the handler: who asks is settled before what is asked, so that a
// stranger learns nothing of the routes either.
func (s *Server) build() http.Handler {
	mux, strangers := http.NewServeMux(), http.NewServeMux()
	for _, rt := range s.routes() {
		if rt.stranger {
			strangers.Handle(rt.method+" "+rt.path, s.serve(rt))
			continue
		}
		mux.Handle(rt.method+" "+rt.path, s.serve(rt))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.finish(w, r, wire.Failure(http.StatusNotFound, wire.ReasonNotFound,
			fmt.Sprintf("there is no route %s %s: see the API's routes in the documentation", r.Method, r.URL.Path)))
	})
	foreign := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(plain http.ResponseWriter, r *http.Request) {
		w := s.newResponse(plain)
		began := time.Now()
		// Until a route says otherwise; also for what the server reads after an early
		// answer. A connection without deadlines, as in tests, has none to set.
		_ = w.control.SetReadDeadline(began.Add(s.patience))
		var c caller
		// Also of a handler that breaks the connection, which it does by a panic.
		defer func() { s.answered(r, w.code, c, began) }()
		var err error
		switch err = foreign.Check(r); {
		case err != nil:
			err = forbidden("%v: programs send a token, and pages of other sites may not call this server", err)
		case r.Method == http.MethodPost && r.URL.Path == wire.PathSessions && r.Header.Get("Authorization") == "":
			r.Pattern = "POST " + wire.PathSessions
			err = s.logIn(w, r)
		case isStranger(strangers, r):
			strangers.ServeHTTP(w, r)
		default:
			if c, err = s.identify(r); err == nil {
				r = r.WithContext(context.WithValue(r.Context(), callerKey{}, c))
				mux.ServeHTTP(w, r)
			}
		}
		if err != nil {
			s.finish(w, r, err)
		}
	})
}

// isStranger reports whether a request is one that needs no token.
func isStranger(strangers *http.ServeMux, r *http.Request) bool {
	_, pattern := strangers.Handler(r)
	return pattern != ""
}

// answered counts and logs a request.
func (s *Server) answered(r *http.Request, code int, c caller, began time.Time) {
	s.metrics.observe(r, code, began)
	s.log.DebugContext(r.Context(), "request", slog.String("method", r.Method), slog.String("path", r.URL.Path),
		slog.Int("code", code), slog.String("token", c.token), slog.String("name", c.name), slog.String("remote", r.RemoteAddr),
		slog.Duration("took", time.Since(began)))
}

// callerKey is the key under which a request carries its caller.
type callerKey struct{}

func (s *Server) identify(r *http.Request) (caller, error) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTime)
	defer cancel()
	header := r.Header.Get("Authorization")
	if header == "" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return s.identifyAgent(ctx, r)
	}
	c, err := s.tokens.authenticate(ctx, header)
	if err == nil && c.role == RoleAgent {
		s.opts.Hosts.saw(c.host)
	}
	return c, err
}

func (s *Server) serve(rt route) http.Handler {
	return http.HandlerFunc(func(plain http.ResponseWriter, r *http.Request) {
		w, ok := plain.(*response)
		if !ok {
			w = s.newResponse(plain)
		}
		c, _ := r.Context().Value(callerKey{}).(caller)
		if !rt.stranger {
			var err error
			if c, err = authorize(c, rt.verb, rt.resource); err != nil {
				s.audited(r, rt, err)
				s.finish(w, r, err)
				return
			}
		}
		if err := c.stands(r, rt); err != nil {
			s.audited(r, rt, err)
			s.finish(w, r, err)
			return
		}
		if !rt.upload {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		if !rt.endless && !watching(r) {
			ctx, cancel := context.WithTimeout(r.Context(), requestTime)
			defer cancel()
			r = r.WithContext(ctx)
		}
		if c.key != "" && (rt.endless || watching(r)) {
			ctx, done := s.live.add(r.Context(), c, w)
			defer done()
			r = r.WithContext(ctx)
		}
		if err := rt.handle(w, r, c); err != nil {
			s.audited(r, rt, err)
			s.finish(w, r, err)
		} else if w.code == 0 {
			w.WriteHeader(http.StatusOK)
		}
	})
}

// finish answers with what went wrong.
func (s *Server) finish(plain http.ResponseWriter, r *http.Request, err error) {
	w, ok := plain.(*response)
	if !ok {
		w = s.newResponse(plain)
	}
	st := statusOf(err)
	if st.Code == http.StatusInternalServerError && w.code == 0 {
		s.log.WarnContext(r.Context(), "request failed", slog.String("method", r.Method),
			slog.String("path", r.URL.Path), slog.Any("error", err))
	}
	w.fail(st)
}

// watching reports whether a request for a list wants its changes instead.
func watching(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Query().Get("watch") == "true"
}
