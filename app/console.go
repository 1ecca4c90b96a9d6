package app

import (
	"net/http"

	"github.com/quorate/quorate/internal/version"
	"github.com/quorate/quorate/server"
	"github.com/quorate/quorate/server/web"
)

// console makes the pages for people. They reach the API as any client does, but
// without leaving the process.
func (s *Server) console(failed *error) func(api http.Handler) http.Handler {
	return func(api http.Handler) http.Handler {
		pages, err := web.New(web.Options{
			Transport: server.InProcess(api), Version: version.Version(), Done: s.ending, Logger: s.opts.Logger,
		})
		*failed = err
		return pages
	}
}
