package app_test

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/quorate/quorate/app"
)

func TestUpStopsAndComesBack(t *testing.T) {
	dir := t.TempDir()
	for round := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		var ready *app.UpReady
		level := slog.LevelWarn
		if os.Getenv("QUORATE_TEST_DEBUG") != "" {
			level = slog.LevelDebug
		}
		err := app.Up(ctx, app.UpOptions{
			DataDir: dir, Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})),
			Progress: func(p app.UpProgress) {
				t.Log(time.Now().Format("05.000"), p.Text)
				if p.Ready != nil {
					ready = p.Ready
					cancel()
				}
			},
		})
		cancel()
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if ready == nil {
			t.Fatalf("round %d: never ready", round)
		}
		t.Logf("round %d: ready after %.2f s", round, ready.Seconds)
		if len(ready.Members) != 3 {
			t.Errorf("round %d: %d members", round, len(ready.Members))
		}
	}
}
