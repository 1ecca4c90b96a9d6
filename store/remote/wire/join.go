package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"time"
)

// JoinTokenRequest asks for a token by which one agent joins, once.
type JoinTokenRequest struct {
	// TTLSeconds the token is to be good for; 0 means an hour.
	TTLSeconds int64 `json:"ttlSeconds,omitempty"`
}

// JoinToken is what an agent joins with. It is told once.
type JoinToken struct {
	// Token is empty in a dry run.
	Token string `json:"token,omitempty"`
	// Host is the name of the EtcdHost that it is for.
	Host string `json:"host"`
	// ExpiresAt is when it can't be used any more.
	ExpiresAt time.Time `json:"expiresAt"`
}

// Join is the body by which an agent joins.
type Join struct {
	// Token of the join, as it was told.
	Token string `json:"token"`
	// CSR is a request in PEM, made with a key that stays on the host.
	CSR string `json:"csr"`
}

// Renewal is the body by which an agent that has joined asks for its next
// certificate.
type Renewal struct {
	// CSR is a request in PEM; its key may be a new one.
	CSR string `json:"csr"`
}

// AgentCertificate is how an agent proves from now on which host it stands for.
type AgentCertificate struct {
	// Host is the name of the EtcdHost that the certificate names.
	Host string `json:"host"`
	// Certificate in PEM, with the chain below its CA.
	Certificate string `json:"certificate"`
	// CA holds the roots of the agents' certificates in PEM.
	CA string `json:"ca"`
	// ServerCA holds the roots in PEM by which the server is to be known; empty where
	// the roots of the host's system do.
	ServerCA string `json:"serverCA,omitempty"`
	// NotAfter is when the certificate expires, by the server's clock.
	NotAfter time.Time `json:"notAfter"`
}

// joinPrefix begins each join token, so that one is known by its looks.
const joinPrefix = "qjoin"

var joinForm = regexp.MustCompile(`^` + joinPrefix + `_([0-9a-f]{16})_([0-9a-f]{64})_([0-9a-f]{64})$`)

// JoinTokenParts are what a join token is made of.
type JoinTokenParts struct {
	// ID names the token, and is no secret.
	ID string
	// Secret is what only its holder knows.
	Secret string
	// Pin is the SHA-256, in hex, of the public key of the last certificate in the chain
	// that the server shows: by it the agent knows the server before it has a CA.
	Pin string
}

// String is the token.
func (p JoinTokenParts) String() string {
	return strings.Join([]string{joinPrefix, p.ID, p.Secret, p.Pin}, "_")
}

// Hash is what a server keeps of the token.
func (p JoinTokenParts) Hash() string {
	sum := sha256.Sum256([]byte(p.ID + "_" + p.Secret))
	return hex.EncodeToString(sum[:])
}

// ParseJoinToken takes a join token apart; false when it is none.
func ParseJoinToken(token string) (JoinTokenParts, bool) {
	found := joinForm.FindStringSubmatch(strings.TrimSpace(token))
	if found == nil {
		return JoinTokenParts{}, false
	}
	return JoinTokenParts{ID: found[1], Secret: found[2], Pin: found[3]}, true
}
