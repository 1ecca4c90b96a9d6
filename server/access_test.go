package server

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/quorate/quorate/store/remote/wire"
)

// want is the table of routes and roles, written out a second time by hand: who
// reaches how much of what. The admin reaches all.
var want = map[string]struct{ viewer, agent scope }{
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters":                           {all, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters":                          {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}":                    {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}":                    {none, none},
	"DELETE /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}":                 {none, none},
	"GET /apis/quorate.io/v1alpha1/etcdclusters":                                                  {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}/status":             {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}/plan":               {all, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}/view":               {all, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}/plan":              {all, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}/accept":            {none, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}/clientcertificate": {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers":                            {all, own},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers":                           {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers/{name}":                     {all, own},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers/{name}":                     {none, own},
	"DELETE /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers/{name}":                  {none, none},
	"GET /apis/quorate.io/v1alpha1/etcdmembers":                                                   {all, own},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers/{name}/status":              {none, own},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers/{name}/certificate":        {none, own},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers/{name}/log":                 {all, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers/{name}/metrics":             {all, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers/{name}/kill":               {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdmembers/{name}/snapshot":            {none, own},
	"GET /apis/quorate.io/v1alpha1/etcdhosts":                                                     {all, own},
	"POST /apis/quorate.io/v1alpha1/etcdhosts":                                                    {none, own},
	"GET /apis/quorate.io/v1alpha1/etcdhosts/{name}":                                              {all, own},
	"PUT /apis/quorate.io/v1alpha1/etcdhosts/{name}":                                              {none, none},
	"PUT /apis/quorate.io/v1alpha1/etcdhosts/{name}/status":                                       {none, own},
	"DELETE /apis/quorate.io/v1alpha1/etcdhosts/{name}":                                           {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdtasks":                              {all, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdtasks":                             {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdtasks/{name}":                       {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdtasks/{name}":                       {none, none},
	"DELETE /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdtasks/{name}":                    {none, none},
	"GET /apis/quorate.io/v1alpha1/etcdtasks":                                                     {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdtasks/{name}/status":                {none, none},
	"POST /apis/quorate.io/v1alpha1/etcdhosts/{name}/load":                                        {none, none},
	"POST /apis/quorate.io/v1alpha1/etcdhosts/{name}/check":                                       {none, none},
	"GET /api/v1/namespaces/{namespace}/secrets":                                                  {none, none},
	"POST /api/v1/namespaces/{namespace}/secrets":                                                 {none, none},
	"GET /api/v1/namespaces/{namespace}/secrets/{name}":                                           {none, none},
	"PUT /api/v1/namespaces/{namespace}/secrets/{name}":                                           {none, none},
	"DELETE /api/v1/namespaces/{namespace}/secrets/{name}":                                        {none, none},
	"GET /api/v1/secrets": {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdrestores":                     {all, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdrestores":                    {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdrestores/{name}":              {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdrestores/{name}":              {none, none},
	"DELETE /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdrestores/{name}":           {none, none},
	"GET /apis/quorate.io/v1alpha1/etcdrestores":                                            {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdrestores/{name}/status":       {none, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdrestores/{name}/preview":     {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackuppolicies":               {all, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackuppolicies":              {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackuppolicies/{name}":        {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackuppolicies/{name}":        {none, none},
	"DELETE /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackuppolicies/{name}":     {none, none},
	"GET /apis/quorate.io/v1alpha1/etcdbackuppolicies":                                      {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackuppolicies/{name}/status": {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackups":                      {all, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackups":                     {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackups/{name}":               {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackups/{name}":               {none, none},
	"DELETE /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackups/{name}":            {none, none},
	"GET /apis/quorate.io/v1alpha1/etcdbackups":                                             {all, none},
	"PUT /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdbackups/{name}/status":        {none, none},
	"GET /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}/placement":    {all, none},
	"POST /apis/quorate.io/v1alpha1/namespaces/{namespace}/etcdclusters/{name}/placement":   {all, none},
	"GET /usage":                         {all, none},
	"GET /rebalance":                     {all, none},
	"GET /metrics":                       {all, none},
	"GET /events":                        {all, none},
	"POST /events":                       {none, own},
	"GET /releases":                      {all, all},
	"GET /releases/{digest}":             {all, all},
	"POST /releases":                     {none, none},
	"GET /version":                       {all, all},
	"GET /openapi.json":                  {all, all},
	"GET /docs":                          {all, all},
	"GET /docs/{file}":                   {all, all},
	"POST /sealingkey/rotate":            {none, none},
	"POST /backup":                       {none, none},
	"POST /sessions":                     {all, none},
	"POST /sessions/links":               {all, none},
	"GET /sessions/current":              {all, own},
	"DELETE /sessions/current":           {all, none},
	"GET /agents/{host}/requests":        {none, own},
	"POST /agents/{host}/responses/{id}": {none, own},
	"POST /agents/{host}/heartbeat":      {none, own},
	"POST /agents/{host}/join":           {none, none},
	"POST /agents/{host}/certificate":    {none, own},
	"POST /apis/quorate.io/v1alpha1/etcdhosts/{name}/jointoken": {none, none},
}

func TestAccess(t *testing.T) {
	seen := map[string]bool{}
	for _, rt := range (&Server{}).routes() {
		name := rt.method + " " + rt.path
		seen[name] = true
		w, ok := want[name]
		if !ok {
			t.Errorf("%s: nobody has said who may use it", name)
			continue
		}
		for role, scope := range map[Role]scope{RoleAdmin: all, RoleViewer: w.viewer, RoleAgent: w.agent, "made-up": none} {
			c, err := authorize(caller{token: "t", role: role, host: "h"}, rt.verb, rt.resource)
			if got := c.scope; got != scope || (err == nil) != (scope != none) {
				t.Errorf("%s as %s: scope %d, %v; want %d", name, role, got, err, scope)
			}
			if err == nil {
				continue
			}
			st, ok := errors.AsType[*wire.Status](err)
			if !ok || st.Code != http.StatusForbidden || !strings.Contains(st.Message, "that needs a token with the role admin") {
				t.Errorf("%s as %s: %v", name, role, err)
			}
		}
	}
	for name := range want {
		if !seen[name] {
			t.Errorf("%s: there is no such route", name)
		}
	}
}

// TestGrantsNameRoutes keeps the table free of lines that grant nothing.
func TestGrantsNameRoutes(t *testing.T) {
	routes := (&Server{}).routes()
	for _, g := range grants {
		for _, v := range g.verbs {
			if !slices.ContainsFunc(routes, func(rt route) bool { return rt.resource == g.resource && rt.verb == v }) {
				t.Errorf("%s %s is granted, and no route asks for it", v, g.resource)
			}
		}
	}
}

func TestOwns(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    caller
		host string
		ok   bool
	}{
		{"own", caller{scope: own, host: "a"}, "a", true},
		{"another's", caller{scope: own, host: "a"}, "b", false},
		{"unbound", caller{scope: own, host: "a"}, "", false},
		{"hostless agent", caller{scope: own}, "", false},
		{"admin", caller{scope: all}, "b", true},
		{"no scope", caller{host: "a"}, "b", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.c.owns(tt.host, "it"); (err == nil) != tt.ok {
				t.Fatalf("owns: %v", err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tt := range []struct {
		name          string
		namespace, ok bool
	}{
		{"a", true, true},
		{"a-1", true, true},
		{"a.b", false, true},
		{"", false, false},
		{".", false, false},
		{"..", false, false},
		{"a/b", false, false},
		{"../a", false, false},
		{"a..b", false, false},
		{"A", false, false},
		{"a_b", false, false},
		{"-a", false, false},
		{"a-", false, false},
		{"a\n", false, false},
		{"a\x00b", false, false},
		{"ä", false, false},
		{long, false, true},
		{strings.Repeat("a", 253), false, true},
		{strings.Repeat("a", 254), false, false},
	} {
		if err := checkName(tt.name); (err == nil) != tt.ok {
			t.Errorf("checkName(%q): %v", tt.name, err)
		}
		if err := checkNamespace(tt.name); (err == nil) != tt.namespace {
			t.Errorf("checkNamespace(%q): %v", tt.name, err)
		}
	}
}
