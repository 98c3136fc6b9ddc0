package policy

import (
	"strings"
	"testing"
)

func TestStateNames(t *testing.T) {
	for s, want := range map[State]string{
		StateCreating: "CREATING", StateDisconnected: "DISCONNECTED", StateUnreachable: "UNREACHABLE",
		StateAuthFailed: "AUTH_FAILED", StateConnected: "CONNECTED", StateConnecting: "CONNECTING",
		StateDestroying: "DESTROYING", StatePoll: "POLL", StateAllRetriesFailed: "ALL_RETRIES_FAILED",
		StateQoSAckRemote: "QOS_ACK_REMOTE", StateQoSNackRemote: "QOS_NACK_REMOTE",
		StateQoSAckLocal: "QOS_ACK_LOCAL", StateQoSNackLocal: "QOS_NACK_LOCAL", StateTimeout: "TIMEOUT",
		StateServerTxn: "SERVER_TXN", StateServerUpgrade: "SERVER_UPGRADE",
		StateEventWaitCancelled: "EVENT_WAIT_CANCELLED", StateUpstreamLinkRetry: "UPSTREAM_LINK_RETRY",
		StateSinkJoin: "SINK_JOIN", StateSinkPart: "SINK_PART",
		1530: "USER_1530", 1000: "USER_1000", 0: "none", 21: "STATE_21", 999: "STATE_999",
	} {
		if got := s.String(); got != want {
			t.Errorf("State(%d) is %q, want %q", uint16(s), got, want)
		}
	}
	if StateSinkPart != 20 || StateTimeout != 14 || StateUserBase != 1000 {
		t.Error("the numbers of states differ from those of lws")
	}
}

// TestNextStates compares the table with the matrix of lws in short names, in which
// "+" precedes an addition to it.
func TestNextStates(t *testing.T) {
	names := strings.Fields("- CRE DIS UNR AUF CON CNG DES POL ARF ACK NAK LAK LNK TMO TXN UPG EWC ULR SJN SPT")
	rows := map[string]string{
		"-": "CRE DES", "CRE": "CNG TMO POL UPG DES", "DIS": "CNG CON TMO POL DES UNR",
		"UNR": "ARF TMO POL UNR CNG CON DES", "AUF": "ARF TMO CNG DES",
		"CON": "UPG TXN AUF ACK NAK LAK LNK DIS TMO CNG POL DES",
		"CNG": "UNR AUF CNG CON ACK NAK TMO POL ARF DIS DES +UPG",
		"DES": "", "POL": "CNG TMO ARF DES", "ARF": "CNG POL TMO UNR DES",
		"ACK": "DIS TMO CNG DES ACK NAK", "NAK": "DIS TMO DES ACK NAK",
		"LAK": "DIS TMO DES", "LNK": "DES TMO",
		"TMO": "CNG CON ACK NAK POL TMO DIS UNR DES +TXN +UPG",
		"TXN": "DIS TMO TXN DES", "UPG": "UPG TXN TMO DIS DES +CON",
	}
	for i, from := range names {
		row := " " + strings.ReplaceAll(rows[from], "+", "") + " "
		for j, to := range names {
			want := j > 0 && strings.Contains(row, " "+to+" ")
			if got := State(i).MayBecome(State(j)); got != want {
				t.Errorf("%s to %s: %v, want %v", from, to, got, want)
			}
		}
	}
	for _, s := range []State{StateEventWaitCancelled, StateUpstreamLinkRetry, StateUserBase, 65535} {
		if !s.Unordered() {
			t.Errorf("%v is part of the sequence", s)
		}
	}
	if State(5000).MayBecome(StateCreating) || StateCreating.MayBecome(5000) {
		t.Error("an unknown state is in the table")
	}
}
