package breaking

// A Category is what a change breaks.
type Category string

// The categories.
const (
	API    Category = "API"    // programs that use the streams
	Wire   Category = "WIRE"   // what peers receive
	Trust  Category = "TRUST"  // who trusts whom
	Timing Category = "TIMING" // when devices connect, retry and give up
	Error  Category = "ERROR"  // unknown, since a policy has an error
)

// A Rule is a kind of breaking change. Its ID is stable.
type Rule struct {
	ID       string
	Category Category
	Summary  string // one line
	Why      string // the consequences for a device in the field
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
		"A streamtype was removed or renamed",
		"A program creates streams by the name of their type. On a device with the new policy, creating this stream fails, and its function is missing."}
	metadataRemoved = &Rule{"metadata-removed", API,
		"A metadata item was removed or renamed",
		"A program that sets the item gets an error, or its value is not sent: the header or the part of the URL is missing."}
	metadataNeeded = &Rule{"metadata-needed", API,
		"A URL, topic or endpoint needs a metadata item that programs do not set yet",
		"Programs built for the old policy do not set the item. Its place stays empty, so the device requests another resource, or none."}
	roleChanged = &Rule{"role-changed", API,
		"A streamtype is a server instead of a client, or the reverse",
		"A program that waits for connections gets none, or listens instead of connecting; its states come in another order."}
	useChanged = &Rule{"use-changed", API,
		"Streams carry something else: requests, messages, bytes, or data of a sink in the process",
		"With requests a connection ends after each answer; with messages and bytes it continues. Handlers written for one get other states and flags with the other."}
	startChanged = &Rule{"start-changed", API,
		"Streams connect at another time: when they are created, or on request of the program",
		"A program that relies on nailed_up never requests a connection, so it gets none; one that requests connections now holds one all the time."}
	statesChanged = &Rule{"states-changed", API,
		"Responses cause different states",
		"The program handles the states of the old policy. A status that meant success now means failure, or the program does not know a user state."}
	payloadChanged = &Rule{"payload-changed", API,
		"Payload has another format, or is divided differently",
		"The program expects payload as in the old policy: whole messages instead of parts, or another format."}
	undeclaredHeaders = &Rule{"undeclared-headers", API,
		"Metadata that the policy does not declare is no longer a header",
		"Without direct_proto_str, setting a header by its own name fails, and the request is sent without it."}
	bufferSmaller = &Rule{"buffer-smaller", API,
		"A proxy or its client buffers less for the stream",
		"Bursts that fitted into the buffer now stop the sender; a program that writes without asking loses data or blocks."}
	reportRemoved = &Rule{"report-removed", API,
		"Metrics or timings are no longer reported",
		"Collectors on the device or in the cloud see a gap that looks like a dead device."}
	buildChanged = &Rule{"build-changed", API,
		"The new policy needs a transport or a build option of lws that the old one did not",
		"Programs were built for the old policy: firmware whose lws lacks the option refuses the tables or the streamtype, and a Go program lacks the transport."}

	endpointMoved = &Rule{"endpoint-moved", Wire,
		"Streams connect to, or listen on, another address",
		"The new server must accept the devices, and their networks (firewalls, allow-lists, DNS) must permit it. Devices with the old policy still use the old address: keep it up."}
	protocolChanged = &Rule{"protocol-changed", Wire,
		"Streams speak another protocol",
		"The server must speak it on that port; middleboxes that pass one HTTP version may not pass another, or UDP."}
	tlsAdded = &Rule{"tls-added", Wire,
		"Streams now use TLS",
		"The server must speak TLS on that port, and the device needs a correct clock and memory for the handshake."}
	requestChanged = &Rule{"request-changed", Wire,
		"Requests have another method, URL or partner",
		"The server gets a request that it may not know; devices with the old policy still send the old one."}
	headerChanged = &Rule{"header-changed", Wire,
		"Requests carry other headers",
		"A server that identifies or authorizes devices by the header sees none, or a new one."}
	bodyChanged = &Rule{"body-changed", Wire,
		"Bodies of requests are encoded differently",
		"A server that expects form data, a multipart message or plain bytes cannot parse another form."}
	redirectsChanged = &Rule{"redirects-changed", Wire,
		"Redirects are treated differently",
		"A server that redirects devices loses them, or a captive portal now looks like a response."}
	cookiesOff = &Rule{"cookies-off", Wire,
		"Cookies are no longer kept",
		"A server that identifies sessions by a cookie starts a new one with each request."}
	authChanged = &Rule{"auth-changed", Wire,
		"Requests authenticate differently",
		"The server may refuse the new scheme, and the device may lack its credential."}
	framesChanged = &Rule{"frames-changed", Wire,
		"WebSocket or HTTP/2 frames are different",
		"The server may refuse the subprotocol, or treat text as binary; quirks exist because a server needs them."}
	topicChanged = &Rule{"topic-changed", Wire,
		"Messages are published or subscribed under another topic, or with other flags",
		"Subscribers of the old topic get nothing, and the broker's access rules may refuse the new one."}
	qosLowered = &Rule{"qos-lowered", Wire,
		"Messages have a lower quality of service",
		"Messages that were acknowledged and sent again can now be lost without notice."}
	sessionChanged = &Rule{"session-changed", Wire,
		"The session, will or birth message at the broker is different",
		"Messages queued for the device are dropped or arrive again; subscribers of the will do not notice a dead device."}
	encodingChanged = &Rule{"encoding-changed", Wire,
		"Values of metadata are inserted differently",
		"A value with a slash, a question mark or a wildcard is now encoded or refused, or now changes the URL or topic."}
	proxyChanged = &Rule{"proxy-changed", Wire,
		"Connections go through another proxy",
		"The device's network must permit the new proxy; hosts behind the old one cannot be reached without it."}
	keyUnread = &Rule{"key-unread", Wire,
		"The new policy uses a key or value that a given version of lws does not read",
		"That version reads an unknown key as a streamtype, or uses a default: devices with it behave differently from those with a newer one."}

	trustNarrowed = &Rule{"trust-narrowed", Trust,
		"Certificates are no longer trusted",
		"If the server's chain ends at one of them, devices cannot connect, not even to fetch a corrected policy. Change the server first."}
	trustWidened = &Rule{"trust-widened", Trust,
		"Additional certificates are trusted",
		"Each of these authorities can now certify the server. Check that all are intended."}
	tlsRemoved = &Rule{"tls-removed", Trust,
		"Streams no longer use TLS",
		"Everyone on the path can read and change payload and credentials."}
	clientCertChanged = &Rule{"client-cert-changed", Trust,
		"Devices present another client certificate, or none",
		"The server refuses devices whose certificate it does not know; the slot on the device may be empty."}
	serverCertChanged = &Rule{"server-cert-changed", Trust,
		"A server has another certificate or key",
		"Clients that trust only the old certificate, or only its issuer, refuse the server."}

	givesUpSooner = &Rule{"gives-up-sooner", Timing,
		"Streams give up sooner after failures",
		"An outage that devices used to survive now ends in ALL_RETRIES_FAILED, after which many programs do nothing until a reboot."}
	retriesSooner = &Rule{"retries-sooner", Timing,
		"Streams wait less before retries",
		"After an outage the server gets more connections a second from the same number of devices, which can keep it down."}
	jitterLowered = &Rule{"jitter-lowered", Timing,
		"Waits vary less",
		"Devices that lost the server at the same time retry at the same time."}
	probesLater = &Rule{"probes-later", Timing,
		"Idle connections are probed less often, or not at all",
		"NAT and firewalls forget a connection without traffic after a minute or two; then nothing reaches the device."}
	noticesLater = &Rule{"notices-later", Timing,
		"A dead connection is noticed later, or never",
		"Until then the device believes that it is connected, and messages for it are lost."}
	hangsUpSooner = &Rule{"hangs-up-sooner", Timing,
		"A silent connection is closed sooner",
		"A slow server, or a radio that sleeps, now causes a new connection and TLS handshake each time."}
	timeoutShorter = &Rule{"timeout-shorter", Timing,
		"Streams time out sooner",
		"Requests that used to succeed on a slow network or a busy server now fail, and are sent again."}
	keepAliveChanged = &Rule{"keep-alive-changed", Timing,
		"The keep-alive at the broker is different",
		"A shorter one costs traffic and battery. With a longer one the broker publishes the will later, and NAT may forget the connection."}
	wakeChanged = &Rule{"wake-changed", Timing,
		"Checks of a connection wake a suspended device, or no longer do",
		"Waking costs battery; without it, the connection is dead when the device wakes."}

	notCompared = &Rule{"not-compared", Error,
		"A changed value has an error in one of the policies",
		"Devices refuse the policy, skip the value or misread it, depending on their version of lws. Correct it, and compare again; lint explains the error."}
)
