package dirty

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New[string]()
		for _, v := range []string{"a", "b", "a", "c", "b"} {
			s.Add(v)
		}
		out := make(chan string)
		go s.Drain(t.Context(), out)
		synctest.Wait()
		s.Add("a") // being handed over: what its reader will see may be older
		s.Add("b") // still waits
		var got []string
		for range 4 {
			got = append(got, <-out)
		}
		if want := []string{"a", "b", "c", "a"}; !slices.Equal(got, want) {
			t.Fatalf("drained %v, want %v", got, want)
		}
		synctest.Wait()
		select {
		case v := <-out:
			t.Fatalf("drained %s as well", v)
		default:
		}
	})
}

func TestDrainEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, add := range []bool{false, true} {
			s := New[int]()
			if add {
				s.Add(1)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { s.Drain(ctx, make(chan int)) })
			synctest.Wait()
			cancel()
			wg.Wait()
		}
	})
}
