package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// confirm has a person type a word. Without a terminal there is no one to ask:
// --yes is wanted then.
func (e *env) confirm(cmd *cobra.Command, question, word string) error {
	if !isTerminal(e.In) {
		return usagef(cmd, "this needs a confirmation, and the input is no terminal: give --yes if you are sure")
	}
	e.errorf("%s\nType %s to go on: ", question, word)
	answer, err := readLine(cmd.Context(), e)
	if err != nil {
		return err
	}
	if strings.TrimSpace(answer) != word {
		return fmt.Errorf("%w: nothing was changed", errCancelled)
	}
	return nil
}

// readLine reads a line, and gives up when ctx ends.
func readLine(ctx context.Context, e *env) (string, error) {
	type answer struct {
		text string
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		text, err := bufio.NewReader(e.In).ReadString('\n')
		got <- answer{text, err}
	}()
	select {
	case a := <-got:
		if a.err != nil && a.text == "" {
			return "", fmt.Errorf("%w: nothing was changed", errCancelled)
		}
		return a.text, nil
	case <-ctx.Done():
		e.errorf("\n")
		return "", fmt.Errorf("%w: nothing was changed", errCancelled)
	}
}
