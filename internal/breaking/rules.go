package breaking

// A Category is what a change breaks.
type Category string

// The categories.
const (
	API    Category = "API"    // programs that use the streams
	Wire   Category = "WIRE"   // what peers receive
	Trust  Category = "TRUST"  // who trusts whom
	Timing Category = "TIMING" // when devices connect, retry and give up
	Error  Category = "ERROR"  // unknown, as a policy has an error
)

// A Rule is a kind of breaking change. Its ID is stable.
type Rule struct {
	ID       string
	Category Category
	Summary  string // one line
	Why      string // what happens to a device in the field
}

// Rules returns all rules, by category.
func Rules() []*Rule { return rules }

var rules = []*Rule{
	streamtypeRemoved, metadataRemoved, metadataNeeded, roleChanged, useChanged, startChanged, statesChanged, payloadChanged, undeclaredHeaders,
	bufferSmaller, reportRemoved, buildChanged,
	endpointMoved, protocolChanged, tlsAdded, requestChanged, headerChanged, bodyChanged, redirectsChanged, cookiesOff, authChanged, framesChanged,
	topicChanged, qosLowered, sessionChanged, encodingChanged, proxyChanged, keyUnread,
	trustNarrowed, trustWidened, tlsRemoved, clientCertChanged, serverCertChanged,
	givesUpSooner, retriesSooner, jitterLowered, probesLater, noticesLater, hangsUpSooner, timeoutShorter, keepAliveChanged, wakeChanged,
	notCompared,
}

var (
	streamtypeRemoved = &Rule{"streamtype-removed", API,
		"A streamtype is gone, or has another name",
		"A program creates streams by the name of their type. On a device with the new policy, creating this one fails, and what it did is not done any more."}
	metadataRemoved = &Rule{"metadata-removed", API,
		"A metadata item is gone, or has another name",
		"A program that sets the item gets an error, or its value goes nowhere: the header or the part of the URL that carried it is missing."}
	metadataNeeded = &Rule{"metadata-needed", API,
		"A URL, topic or endpoint needs a metadata item that programs do not set yet",
		"Programs built for the old policy do not know the item. Its place stays empty, so the device asks for another resource, or for none."}
	roleChanged = &Rule{"role-changed", API,
		"A streamtype is a server instead of a client, or the other way",
		"A program that waits for connections gets none, or listens where it used to connect; its states come in another order."}
	useChanged = &Rule{"use-changed", API,
		"Streams are used in another way: requests, messages, bytes, or a sink in the process",
		"With a request a connection ends after each answer; messages and bytes go on. Handlers written for one see other states and flags with the other."}
	startChanged = &Rule{"start-changed", API,
		"Streams connect at another time: when they are created, or when the program asks",
		"A program that relied on nailed_up never asks for a connection, so it gets none; one that relied on asking now holds a connection all the time."}
	statesChanged = &Rule{"states-changed", API,
		"Responses lead to other states than before",
		"The program handles the states of the old policy. A status that meant success now means failure, or a user state is one that it does not know."}
	payloadChanged = &Rule{"payload-changed", API,
		"Payload has another format, or arrives in other parts",
		"The program parses what it receives by the old policy: whole messages instead of parts, or another format."}
	undeclaredHeaders = &Rule{"undeclared-headers", API,
		"Metadata that the policy does not declare is no longer a header",
		"Without direct_proto_str, setting a header by its own name fails, and the request goes out without it."}
	bufferSmaller = &Rule{"buffer-smaller", API,
		"A proxy or its client buffers less for the stream",
		"Bursts that fitted into the buffer now stop the sender; a program that writes without asking loses data or blocks."}
	reportRemoved = &Rule{"report-removed", API,
		"Metrics or timings are no longer reported",
		"What collects them on the device, or in the cloud, sees a gap that looks like a dead device."}
	buildChanged = &Rule{"build-changed", API,
		"The new policy needs a transport or a build option of lws that the old one did not",
		"A program links what the old policy needs: firmware with lws built without the option refuses the tables or the streamtype, and a Go program has no such transport."}

	endpointMoved = &Rule{"endpoint-moved", Wire,
		"Streams connect to, or listen on, another place",
		"Devices meet a server that may not know them; firewalls, allow-lists and DNS of their networks must permit it. Devices with the old policy still use the old place: keep it up."}
	protocolChanged = &Rule{"protocol-changed", Wire,
		"Streams speak another protocol",
		"The server must speak it on that port; middleboxes that pass one HTTP version may not pass another, or UDP."}
	tlsAdded = &Rule{"tls-added", Wire,
		"Streams use TLS, which they did not before",
		"The server must have TLS on that port, and the device a clock that is right and memory for the handshake."}
	requestChanged = &Rule{"request-changed", Wire,
		"Requests have another method, URL or partner",
		"The server gets a request that it may not know; devices with the old policy still send the old one."}
	headerChanged = &Rule{"header-changed", Wire,
		"Requests carry other headers",
		"A server that identifies or authorizes devices by the header sees none, or a new one."}
	bodyChanged = &Rule{"body-changed", Wire,
		"Bodies of requests are framed in another way",
		"The server parses form data, a multipart message or plain bytes: with the other form it finds nothing."}
	redirectsChanged = &Rule{"redirects-changed", Wire,
		"Redirects are treated in another way",
		"A server that redirects devices loses them, or a captive portal now looks like a response."}
	cookiesOff = &Rule{"cookies-off", Wire,
		"Cookies are no longer kept",
		"Sessions that the server keeps by a cookie begin again with each request."}
	authChanged = &Rule{"auth-changed", Wire,
		"Requests authenticate in another way",
		"The server refuses what it does not expect, and the device may not have the credential that the new scheme wants."}
	framesChanged = &Rule{"frames-changed", Wire,
		"WebSocket or HTTP/2 frames are different",
		"The server may refuse the subprotocol, or treat text as binary; quirks exist because a server needs them."}
	topicChanged = &Rule{"topic-changed", Wire,
		"Messages are published or subscribed under another topic, or with other flags",
		"Subscribers of the old topic get nothing, and the broker's access rules may refuse the new one."}
	qosLowered = &Rule{"qos-lowered", Wire,
		"Messages have a lower quality of service",
		"Messages that the broker acknowledged, and that were sent again, can now be lost without notice."}
	sessionChanged = &Rule{"session-changed", Wire,
		"The session, will or birth message at the broker is different",
		"Messages queued for the device are dropped or come again; who watches the will sees a device that never dies."}
	encodingChanged = &Rule{"encoding-changed", Wire,
		"Values of metadata are inserted in another way",
		"A value with a slash, a question mark or a wildcard is now encoded or refused, or now changes the URL or topic."}
	proxyChanged = &Rule{"proxy-changed", Wire,
		"Connections go through another proxy",
		"The device's network must let it reach the proxy; without the old one, hosts behind it are out of reach."}
	keyUnread = &Rule{"key-unread", Wire,
		"The new policy uses a key or value that a given version of lws does not read",
		"That version makes a phantom streamtype of an unknown key, or falls back to a default: devices with it do something else than those with a newer one."}

	trustNarrowed = &Rule{"trust-narrowed", Trust,
		"Certificates that were trusted are not any more",
		"If the server's chain ends at one of them, devices cannot connect, and cannot fetch a policy that mends it. Change the server first."}
	trustWidened = &Rule{"trust-widened", Trust,
		"Certificates are trusted that were not before",
		"Whoever holds one of these authorities can now be the server. Check that each is meant."}
	tlsRemoved = &Rule{"tls-removed", Trust,
		"Streams no longer use TLS",
		"Everyone on the path can read and change payload and credentials."}
	clientCertChanged = &Rule{"client-cert-changed", Trust,
		"Devices present another client certificate, or none",
		"The server refuses devices whose certificate it does not know; the slot on the device may be empty."}
	serverCertChanged = &Rule{"server-cert-changed", Trust,
		"A server has another certificate or key",
		"Clients that trust the old certificate itself, or its issuer alone, refuse the server."}

	givesUpSooner = &Rule{"gives-up-sooner", Timing,
		"Streams give up sooner after failures",
		"An outage that devices used to survive now ends in ALL_RETRIES_FAILED, after which many programs do nothing until a reboot."}
	retriesSooner = &Rule{"retries-sooner", Timing,
		"Streams wait less before they try again",
		"After an outage the server gets more connections a second from the same number of devices, which can keep it down."}
	jitterLowered = &Rule{"jitter-lowered", Timing,
		"Waits vary less",
		"Devices that lost the server at the same time come back at the same time."}
	probesLater = &Rule{"probes-later", Timing,
		"Idle connections are probed less often, or not at all",
		"NAT and firewalls forget a connection without traffic after a minute or two; then nothing reaches the device."}
	noticesLater = &Rule{"notices-later", Timing,
		"A dead connection is noticed later, or never",
		"Until then the device believes that it is connected, and messages for it are lost."}
	hangsUpSooner = &Rule{"hangs-up-sooner", Timing,
		"A connection without sign of life is closed sooner",
		"A server that is slow, or a radio that sleeps, now costs a new connection and TLS handshake each time."}
	timeoutShorter = &Rule{"timeout-shorter", Timing,
		"Streams time out sooner",
		"Requests that used to succeed on a slow network or a busy server now fail, and are sent again."}
	keepAliveChanged = &Rule{"keep-alive-changed", Timing,
		"The keep-alive at the broker is different",
		"A shorter one costs traffic and battery; with a longer one the broker publishes the will, and NAT forgets the connection, later."}
	wakeChanged = &Rule{"wake-changed", Timing,
		"Checks of a connection wake a suspended device, or no longer do",
		"Waking costs battery; without it, the connection is dead when the device wakes."}

	notCompared = &Rule{"not-compared", Error,
		"A value changes that has an error in one of the policies",
		"What devices make of the value depends on their version of lws: they refuse the policy, skip the value, or read another one. Correct it, and compare again; lint explains the error."}
)
