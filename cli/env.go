package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/quorate/quorate/app"
	"github.com/quorate/quorate/store/remote"
)

// Environment variables that stand for flags that are not given.
const (
	envServer    = "QUORATE_SERVER"
	envToken     = "QUORATE_TOKEN"      //nolint:gosec // the name of a variable
	envJoinToken = "QUORATE_JOIN_TOKEN" //nolint:gosec // the name of a variable
	envCAFile    = "QUORATE_CA_FILE"
	envDataDir   = "QUORATE_DATA_DIR"
)

// defaultNamespace is where objects live unless told otherwise.
const defaultNamespace = "default"

// callTime bounds one call to the server.
const callTime = 15 * time.Second

// env is what all commands share: the streams and the global flags.
type env struct {
	Stdio
	// arg0 is the program as it was called.
	arg0 string

	server    string
	tokenFile string
	caFile    string
	dataDir   string
	namespace string
	level     string
}

func newEnv(args []string, stdio Stdio) *env {
	return &env{Stdio: stdio, arg0: args[0]}
}

// bind adds the global flags.
func (e *env) bind(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringVar(&e.server, "server", "", "URL of the server (env "+envServer+"; default: from client.json in the data directory)")
	f.StringVar(&e.tokenFile, "token-file", "", "file with the token for the server (env "+envToken+" holds the token itself)")
	f.StringVar(&e.caFile, "ca-file", "", "file with the CA that the server's certificate is signed by (env "+envCAFile+")")
	f.StringVar(&e.dataDir, "data-dir", "", "Quorate's data directory (env "+envDataDir+"; default "+app.DefaultDataDir()+")")
	f.StringVarP(&e.namespace, "namespace", "n", defaultNamespace, "namespace of the objects")
	f.StringVarP(&e.level, "log-level", "v", "", "least severe line to log: debug, info, warn or error")
}

// printf writes to stdout. A reader that has gone away is no failure of ours.
func (e *env) printf(format string, args ...any) { _, _ = fmt.Fprintf(e.Out, format, args...) }

// errorf writes to stderr. Commands that it names are written as they can be typed.
func (e *env) errorf(format string, args ...any) {
	_, _ = io.WriteString(e.Err, e.typed(fmt.Sprintf(format, args...)))
}

// orEnv is a flag's value, or that of the variable that stands for it.
func orEnv(value, variable string) string {
	if value != "" {
		return value
	}
	return os.Getenv(variable)
}

// home is the data directory.
func (e *env) home() string {
	if dir := orEnv(e.dataDir, envDataDir); dir != "" {
		return dir
	}
	return app.DefaultDataDir()
}

// config says how the server is reached.
func (e *env) config() (remote.Config, error) {
	token, err := e.token()
	if err != nil {
		return remote.Config{}, err
	}
	server, ca := orEnv(e.server, envServer), orEnv(e.caFile, envCAFile)
	if server != "" {
		if token == "" {
			return remote.Config{}, fmt.Errorf("%w: %s wants a token: give it with --token-file, or in %s", errNoServer, server, envToken)
		}
		return remote.Config{Server: server, Token: token, CAFile: ca}, nil
	}
	file := app.ClientConfigFile(e.home())
	if _, err = os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return remote.Config{}, fmt.Errorf("%w: there is no %s: start one with `quorate up`, or name one with --data-dir, or --server and --token-file",
			errNoServer, file)
	}
	cfg, err := remote.LoadConfig(file)
	if err != nil {
		return remote.Config{}, err
	}
	if token != "" {
		cfg.Token = token
	}
	if ca != "" {
		cfg.CA, cfg.CAFile = "", ca
	}
	return cfg, nil
}

func (e *env) token() (string, error) {
	if e.tokenFile == "" {
		return strings.TrimSpace(os.Getenv(envToken)), nil
	}
	raw, err := os.ReadFile(e.tokenFile)
	if err != nil {
		return "", fmt.Errorf("read the token (--token-file): %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// connect makes the client. It does not talk to the server yet.
func (e *env) connect() (*remote.Client, error) {
	cfg, err := e.config()
	if err != nil {
		return nil, err
	}
	log, err := e.logger(slog.LevelError, e.Err)
	if err != nil {
		return nil, err
	}
	return remote.New(cfg, remote.Options{Logger: log})
}

// logger writes lines of at least the level asked for with -v, or usual.
func (e *env) logger(usual slog.Level, to io.Writer) (*slog.Logger, error) {
	level := usual
	if e.level != "" {
		if err := level.UnmarshalText([]byte(e.level)); err != nil {
			return nil, &usageError{command: "quorate", text: fmt.Sprintf("--log-level is %q: use debug, info, warn or error", e.level)}
		}
	}
	if isTerminal(e.Err) {
		return slog.New(tint.NewHandler(to, &tint.Options{Level: level, NoColor: !e.colour(e.Err), TimeFormat: time.TimeOnly})), nil
	}
	return slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: level})), nil
}

// colour reports whether w may be coloured.
func (*env) colour(w io.Writer) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w)
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// width is the number of columns of a terminal; 0 for what is none.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return columns
}

// call bounds one call to the server.
func call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTime)
}
