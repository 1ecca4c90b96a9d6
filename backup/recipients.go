package backup

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"
)

var (
	// ErrRecipient says that a text is no age recipient.
	ErrRecipient = errors.New("no age recipient: give age1…, as age-keygen prints it")
	// ErrSecretGiven says that an identity was given where everybody may read it.
	ErrSecretGiven = errors.New("a secret identity was given where its public recipient belongs: give the age1… that age-keygen -y prints")
)

// Recipient is who can open an encrypted backup.
type Recipient struct {
	recipient age.Recipient
	// Fingerprint tells it from others in a manifest, without naming it.
	Fingerprint string
}

// ParseRecipients reads age recipients, one a text. Empty texts, comments and those that
// were given before are passed over. Errors are ErrRecipient and ErrSecretGiven.
func ParseRecipients(texts []string) ([]Recipient, error) {
	const shown = 8 // bytes of the hash
	var all []Recipient
	seen := map[string]bool{}
	for _, text := range texts {
		text = strings.TrimSpace(text)
		switch {
		case text == "" || strings.HasPrefix(text, "#") || seen[text]:
			continue
		case strings.HasPrefix(text, "AGE-SECRET-KEY-"):
			return nil, ErrSecretGiven
		}
		seen[text] = true
		parsed, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(parsed) != 1 {
			return nil, fmt.Errorf("%.20q… is %w", text, ErrRecipient)
		}
		sum := sha256.Sum256([]byte(text))
		all = append(all, Recipient{recipient: parsed[0], Fingerprint: "sha256:" + hex.EncodeToString(sum[:shown])})
	}
	return all, nil
}

// opened are those whom age encrypts for, and fingerprints what a manifest names them by.
func opened(all []Recipient) (recipients []age.Recipient, fingerprints []string) {
	for _, r := range all {
		recipients, fingerprints = append(recipients, r.recipient), append(fingerprints, r.Fingerprint)
	}
	return recipients, fingerprints
}
