package wire

import "time"

// LinkRequest asks for a one-time log-in code.
type LinkRequest struct {
	// TTLSeconds the code is to be good for; 0 means 15 minutes.
	TTLSeconds int64 `json:"ttlSeconds,omitempty"`
}

// LoginLink is a one-time log-in code. It begins one session with the role of who
// asked for it.
type LoginLink struct {
	Code string `json:"code"`
	// Path of the console's log-in page with the code, to go behind the server's URL.
	Path      string    `json:"path"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// Login is the body of a log-in by a code.
type Login struct {
	Code string `json:"code,omitempty"`
}

// Session is a log-in of limited time. Its token is sent as any other.
type Session struct {
	// Token is told once, when the session begins.
	Token string `json:"token,omitempty"`
	// Name of the token that the session stands for.
	Name string `json:"name"`
	// Role is admin, viewer or agent.
	Role string `json:"role"`
	// ExpiresAt is missing for a token that is no session's: those last until they
	// are deleted.
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
}
