package faulttest

import (
	"sync/atomic"

	"github.com/secure-streams/sspolicy/runtime/policy"
)

var onlyMQTT = []policy.Protocol{policy.ProtocolMQTT}

// brokers returns the function of a fault of a broker.
func brokers(f func(*peer) *brokerFaults) func(*peer) *behavior {
	return func(p *peer) *behavior { return &behavior{mqtt: f(p)} }
}

func subscribes(st *policy.StreamType) bool { return st.MQTT.Subscribe != "" }

// Faults of MQTT brokers.
var (
	MQTTRefused = &Fault{
		Name: "mqtt-refused", Family: "mqtt", Summary: "The broker refuses the connection", Proto: onlyMQTT,
		Why:    "The codes of MQTT 3.1.1, section 3.2.2.3: 1 protocol version, 2 client id, 3 broker not available, 4 user name or password, 5 not authorized. Only 3 is temporary, but a device retries after each of them.",
		Params: []Param{{Name: "code", Help: "The code in the CONNACK.", Default: "5", Min: 1, Max: 5}},
		misbehave: brokers(func(p *peer) *brokerFaults {
			return &brokerFaults{connack: func() (byte, bool) {
				p.strike("the connection is refused with %d", p.args.int("code"))
				return byte(p.args.int("code")), true
			}}
		}),
		expect: fails,
	}
	MQTTNoConnack = &Fault{
		Name: "mqtt-no-connack", Family: "mqtt", Summary: "The broker does not answer CONNECT", Proto: onlyMQTT,
		Why: "AWS IoT Device Advisor withholds the CONNACK to see whether a device backs off.",
		misbehave: brokers(func(p *peer) *brokerFaults {
			return &brokerFaults{mute: map[byte]bool{mqttConnect: true}}
		}),
		expect: fails,
		Cause:  timedOut,
	}
	MQTTNoSuback = &Fault{
		Name: "mqtt-no-suback", Family: "mqtt", Summary: "The broker does not acknowledge the subscription", Proto: onlyMQTT, Only: subscribes,
		Why: "The broker has lost the subscription. A device that does not check for the acknowledgement waits for messages forever.",
		misbehave: brokers(func(p *peer) *brokerFaults {
			return &brokerFaults{mute: map[byte]bool{mqttSubscribe: true}}
		}),
		expect: fails,
	}
	MQTTNoPuback = &Fault{
		Name: "mqtt-no-puback", Family: "mqtt", Summary: "The broker does not acknowledge messages", Proto: onlyMQTT,
		Only: func(st *policy.StreamType) bool { return st.MQTT.Topic != "" && st.MQTT.QoS > 0 },
		Why:  "The broker is overloaded, or its storage is full. The message is sent again after 3, 6 and 9 s, and given up after 12 s.",
		misbehave: brokers(func(p *peer) *brokerFaults {
			return &brokerFaults{mute: map[byte]bool{mqttPublish: true}}
		}),
		expect: func(s *subject) expectation { return expect("CON NAK") },
	}
	MQTTBrokerGone = &Fault{
		Name: "mqtt-broker-gone", Family: "mqtt", Summary: "The broker closes each connection that it has accepted", Proto: onlyMQTT,
		Why: "Another client connects with the same client id, or the broker is restarted again and again. In lws each CONNECTED resets the backoff, so the device reconnects fast.",
		misbehave: brokers(func(p *peer) *brokerFaults {
			return &brokerFaults{drop: func() bool { p.strike("the connection is closed"); return true }}
		}),
		expect: func(s *subject) expectation { return expect(s.dropped()...) },
	}
	MQTTSessionLost = &Fault{
		Name: "mqtt-session-lost", Family: "mqtt", Summary: "The broker closes the first connection and forgets the session", Proto: onlyMQTT,
		Why: "The broker is replaced. It sends session present = 0, and the device must subscribe again to receive messages.",
		misbehave: brokers(func(p *peer) *brokerFaults {
			var n atomic.Int32
			return &brokerFaults{drop: func() bool {
				if n.Add(1) > 1 {
					return false
				}
				p.strike("the connection is closed, and the session forgotten")
				return true
			}}
		}),
		expect: func(s *subject) expectation {
			return expectation{attempts: func(n int) []string {
				if n == 1 {
					return s.dropped()
				}
				return []string{s.healthy()}
			}}
		},
	}
	AWSConnectBackoff = &Fault{
		Name: "aws-connect-backoff", Family: "mqtt", Summary: "The broker withholds five CONNACKs, sends one, and repeats this", Proto: onlyMQTT,
		Why: "This is the connect-backoff test of AWS IoT Device Advisor. A device passes if its waits grow, as in the table of its policy, and it connects when the broker accepts.",
		misbehave: brokers(func(p *peer) *brokerFaults {
			var n atomic.Int32
			last := func() bool { return n.Load()%6 == 0 && n.Load() <= 12 }
			return &brokerFaults{
				connack: func() (byte, bool) {
					if n.Add(1); !last() && n.Load() < 12 {
						p.strike("CONNACK %d is withheld", n.Load())
						return 0, false
					}
					return 0, true
				},
				drop: func() bool { return n.Load() == 6 },
			}
		}),
		expect: func(s *subject) expectation {
			return expectation{attempts: func(n int) []string {
				switch {
				case n == 6:
					return s.dropped()
				case n < 12:
					return []string{unreachable}
				}
				return []string{s.healthy()}
			}}
		},
	}
)

// dropped describes an attempt whose connection the broker closes once the stream
// is connected. A message with QoS 0 counts as sent when it is written, possibly
// before the end of the connection arrives.
func (s *subject) dropped() []string {
	if s.MQTT.Topic != "" && s.MQTT.QoS == 0 {
		return []string{"CON DIS", "CON ACK DIS"}
	}
	return []string{"CON DIS"}
}

var mqttFaults = []*Fault{MQTTRefused, MQTTNoConnack, MQTTNoSuback, MQTTNoPuback, MQTTBrokerGone, MQTTSessionLost, AWSConnectBackoff}
