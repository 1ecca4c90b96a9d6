package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// askPatience bounds one question to one member.
const askPatience = 3 * time.Second

// plainClient connects without TLS.
func plainClient(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: askPatience, Logger: zap.NewNop()})
}

// moveLeader finds the leader among the endpoints, and has it hand over.
func moveLeader(ctx context.Context, o Options, d Disturbance) error {
	connect := o.Client
	if connect == nil {
		connect = plainClient
	}
	leader, to, err := pickLeader(ctx, connect, d)
	if err != nil {
		return err
	}
	c, err := connect(leader)
	if err != nil {
		return fmt.Errorf("connect to the leader at %s: %w", leader, err)
	}
	defer c.Close() //nolint:errcheck // nothing is read from it any more
	ctx, cancel := context.WithTimeout(ctx, 4*askPatience)
	defer cancel()
	if _, err = c.MoveLeader(ctx, to); err != nil {
		return fmt.Errorf("the leader at %s does not hand over to %x: %w", leader, to, err)
	}
	return nil
}

// pickLeader returns the leader's endpoint, and who is to lead.
func pickLeader(ctx context.Context, connect func(string) (*clientv3.Client, error), d Disturbance) (leader string, to uint64, err error) {
	to = d.To
	var errs error
	for _, endpoint := range d.Endpoints {
		id, leads, learner, err := ask(ctx, connect, endpoint)
		switch {
		case err != nil:
			errs = errors.Join(errs, err)
		case leads:
			leader = endpoint
		case to == 0 && !learner:
			to = id
		}
	}
	switch {
	case leader == "":
		return "", 0, errors.Join(errors.New("no endpoint is the leader's: name one of each member"), errs)
	case to == 0:
		return "", 0, errors.Join(errors.New("no other voter answers: name an endpoint of each member"), errs)
	}
	return leader, to, nil
}

func ask(ctx context.Context, connect func(string) (*clientv3.Client, error), endpoint string) (id uint64, leads, learner bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	c, err := connect(endpoint)
	if err != nil {
		return 0, false, false, fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	defer c.Close() //nolint:errcheck // nothing is read from it any more
	st, err := c.Status(ctx, endpoint)
	if err != nil {
		return 0, false, false, fmt.Errorf("ask %s who leads: %w", endpoint, err)
	}
	id = st.Header.MemberId
	return id, st.Leader == id, st.IsLearner, nil
}
