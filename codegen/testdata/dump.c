/*
 * Prints tables as keys and values of a policy. It depends on the lws headers, not on
 * the writer of tables, and also prints the result of lws's own parser. Streamtypes
 * count from the end of the list, where the first one of a policy is.
 *
 * The tables are those in policy.h; with -DDUMP_ONLY, the program that includes this
 * file passes them to dump(). TOKEN_NAME(n) is the name of the header with number n.
 */
#include <stdio.h>
#include <string.h>

#if !defined(DUMP_ONLY)
#include "policy.h"
#endif

#define SINCE(major, minor) (LWS_LIBRARY_VERSION_NUMBER >= (major) * 1000000 + (minor) * 1000)

static char at[200]; /* the path that lines begin with */

static size_t enter(const char *key)
{
	size_t was = strlen(at);

	printf("%s.%s set\n", at, key);
	snprintf(at + was, sizeof(at) - was, ".%s", key);
	return was;
}

static void bytes(const void *p, size_t n)
{
	const unsigned char *c = p;

	putchar('"');
	for (; n--; c++)
		if (*c > ' ' && *c < 0x7f && *c != '\\')
			putchar(*c);
		else
			printf("\\%02x", *c);
	putchar('"');
}

static void text(const char *key, const char *s)
{
	if (!s)
		return;
	printf("%s.%s ", at, key);
	bytes(s, strlen(s));
	putchar('\n');
}

static void number(const char *key, unsigned long long n)
{
	if (n)
		printf("%s.%s %llu\n", at, key, n);
}

static void cert(const char *key, const lws_ss_x509_t *x)
{
	if (!x)
		return;
	printf("%s.%s ", at, key);
	bytes(x->vhost_name, strlen(x->vhost_name));
	putchar(' ');
	if (x->ca_der)
		bytes(x->ca_der, x->ca_der_len);
	else
		printf("none");
	puts(x->keep ? " keep" : "");
}

static void store(const lws_ss_trust_store_t *t)
{
	char key[20];
	size_t was;
	int i;

	if (!t)
		return;
	was = enter("tls_trust_store");
	text("name", t->name);
	for (i = 0; i < t->count; i++) {
		snprintf(key, sizeof(key), "stack[%d]", i);
		cert(key, t->ssx509[i]);
	}
	for (; i < 6; i++)
		cert("beyond the count", t->ssx509[i]);
	at[was] = 0;
}

static void retry(const lws_retry_bo_t *r)
{
	size_t was;
	int i;

	if (!r)
		return;
	was = enter("retry");
	for (i = 0; i < r->retry_ms_table_count; i++) {
		printf("%s.backoff[%d] %llu\n", at, i, (unsigned long long)r->retry_ms_table[i]);
	}
	number("conceal", r->conceal_count);
	number("jitterpc", r->jitter_percent);
	number("svalidping", r->secs_since_valid_ping * 1000ull);
	number("svalidhup", r->secs_since_valid_hangup * 1000ull);
	at[was] = 0;
}

static void metadata(const lws_ss_policy_t *p)
{
	const lws_ss_metadata_t *m;
	int n = 0;

	for (m = p->metadata; m; m = m->next, n++) {
		printf("%s.metadata[%d] ", at, (int)m->length);
		bytes(m->name, strlen(m->name));
		putchar(' ');
#if SINCE(4, 2)
		bytes(m->value__may_own_heap, m->value_length);
#else
		bytes(m->value, strlen(m->value));
#endif
		putchar('\n');
#if SINCE(4, 2)
		if (m->value_is_http_token != 0xff)
			printf("%s.metadata[%d].token %s\n", at, (int)m->length, TOKEN_NAME(m->value_is_http_token));
		if (m->value_on_lws_heap)
			printf("%s.metadata[%d] on the heap\n", at, (int)m->length);
#endif
	}
	if (n != p->metadata_count)
		printf("%s.metadata counts %d, has %d\n", at, p->metadata_count, n);
	if (n) {
		printf("%s.metadata.order", at);
		for (m = p->metadata; m; m = m->next)
			printf(" %d", (int)m->length);
		putchar('\n');
	}
}

static const struct {
	unsigned int bit;
	const char *key;
} flags[] = {
	{ LWSSSPOLF_OPPORTUNISTIC, "opportunistic" },
	{ LWSSSPOLF_NAILED_UP, "nailed_up" },
	{ LWSSSPOLF_URGENT_TX, "urgent_tx" },
	{ LWSSSPOLF_URGENT_RX, "urgent_rx" },
	{ LWSSSPOLF_TLS, "tls" },
	{ LWSSSPOLF_LONG_POLL, "long_poll" },
	{ LWSSSPOLF_HTTP_NO_CONTENT_LENGTH, "http_no_content_length" },
	{ LWSSSPOLF_QUIRK_NGHTTP2_END_STREAM, "nghttp2_quirk_end_stream" },
	{ LWSSSPOLF_H2_QUIRK_OVERFLOWS_TXCR, "h2q_oflow_txcr" },
	{ LWSSSPOLF_HTTP_MULTIPART, "multipart" },
	{ LWSSSPOLF_HTTP_X_WWW_FORM_URLENCODED, "http_www_form_urlencoded" },
	{ LWSSSPOLF_LOCAL_SINK, "local_sink" },
	{ LWSSSPOLF_WAKE_SUSPEND__VALIDITY, "swake_validity" },
	{ LWSSSPOLF_SERVER, "server" },
	{ LWSSSPOLF_ALLOW_REDIRECTS, "allow_redirects" },
	{ LWSSSPOLF_HTTP_MULTIPART_IN, "http_multipart_ss_in" },
#if SINCE(4, 2)
	{ LWSSSPOLF_ATTR_LOW_LATENCY, "attr_low_latency" },
	{ LWSSSPOLF_ATTR_HIGH_THROUGHPUT, "attr_high_throughput" },
	{ LWSSSPOLF_ATTR_HIGH_RELIABILITY, "attr_high_reliability" },
	{ LWSSSPOLF_ATTR_LOW_COST, "attr_low_cost" },
	{ LWSSSPOLF_PERF, "perf" },
#endif
#if SINCE(4, 3)
	{ LWSSSPOLF_DIRECT_PROTO_STR, "direct_proto_str" },
	{ LWSSSPOLF_HTTP_CACHE_COOKIES, "http_cookies" },
	{ LWSSSPOLF_PRIORITIZE_READS, "ws_prioritize_reads" },
#endif
};

static void stream(const lws_ss_policy_t *p)
{
	unsigned int known = 0;
	int i;

	printf("%s ", at);
	bytes(p->streamtype, strlen(p->streamtype));
	putchar('\n');
	text("endpoint", p->endpoint);
	text("rideshare", p->rideshare_streamtype);
	text("payload_fmt", p->payload_fmt);
	text("via-socks5", p->socks5_proxy);
	number("timeout_ms", p->timeout_ms);
	number("port", p->port);
	number("client_cert", p->client_cert);
	metadata(p);
	retry(p->retry_bo);
	for (i = 0; i < (int)(sizeof(flags) / sizeof(flags[0])); i++) {
		known |= flags[i].bit;
		if (p->flags & flags[i].bit)
			printf("%s.%s 1\n", at, flags[i].key);
	}
	number("unknown flags", p->flags & ~known);
	if (p->flags & LWSSSPOLF_SERVER) {
		cert("server_cert", p->trust.server.cert);
		cert("server_key", p->trust.server.key);
	} else
		store(p->trust.store);

#if SINCE(4, 2)
	number("attr_priority", p->priority);
	number("proxy_buflen", p->proxy_buflen);
	number("proxy_buflen_rxflow_on_above", p->proxy_buflen_rxflow_on_above);
	number("proxy_buflen_rxflow_off_below", p->proxy_buflen_rxflow_off_below);
	number("client_buflen", p->client_buflen);
	number("client_buflen_rxflow_on_above", p->client_buflen_rxflow_on_above);
	number("client_buflen_rxflow_off_below", p->client_buflen_rxflow_off_below);
	text("aws_region", p->aws_region);
	text("aws_service", p->aws_service);
	if (p->auth) {
		size_t was = enter("use_auth");

		text("name", p->auth->name);
		text("type", p->auth->type);
		text("streamtype", p->auth->streamtype);
		number("blob", p->auth->blob_index);
		at[was] = 0;
	}
#endif
#if SINCE(4, 4)
	{
		const struct lws_protocol_vhost_options *o;

		for (o = p->pvo, i = 0; o; o = o->next, i++) {
			printf("%s.options[%d] ", at, i);
			bytes(o->name, strlen(o->name));
			putchar(' ');
			bytes(o->value, strlen(o->value));
			puts(o->options ? " with options" : "");
		}
	}
	number("txc", (unsigned long long)p->txc);
	number("txc_peer", (unsigned long long)p->txc_peer);
#endif

	switch (p->protocol) {
	case LWSSSP_RAW:
		printf("%s.protocol raw\n", at);
		for (i = 0; i < (int)sizeof(p->u) && !((const char *)&p->u)[i]; i++)
			;
		if (i < (int)sizeof(p->u))
			printf("%s.u set\n", at);
		return;
	case LWSSSP_MQTT:
		printf("%s.protocol mqtt\n", at);
		text("mqtt_topic", p->u.mqtt.topic);
		text("mqtt_subscribe", p->u.mqtt.subscribe);
		number("mqtt_qos", p->u.mqtt.qos);
		number("mqtt_keep_alive", p->u.mqtt.keep_alive * 1000ull);
		number("mqtt_clean_start", p->u.mqtt.clean_start);
		text("mqtt_will_topic", p->u.mqtt.will_topic);
		text("mqtt_will_message", p->u.mqtt.will_message);
		number("mqtt_will_qos", p->u.mqtt.will_qos);
		number("mqtt_will_retain", p->u.mqtt.will_retain);
#if SINCE(4, 2)
		number("aws_iot", p->u.mqtt.aws_iot);
#endif
#if SINCE(4, 3)
		number("mqtt_retain", p->u.mqtt.retain);
		text("mqtt_birth_topic", p->u.mqtt.birth_topic);
		text("mqtt_birth_message", p->u.mqtt.birth_message);
		number("mqtt_birth_qos", p->u.mqtt.birth_qos);
		number("mqtt_birth_retain", p->u.mqtt.birth_retain);
#endif
		return;
	case LWSSSP_H1:
		printf("%s.protocol h1\n", at);
		break;
	case LWSSSP_H2:
		printf("%s.protocol h2\n", at);
		break;
#if SINCE(5, 0)
	case LWSSSP_H3:
		printf("%s.protocol h3\n", at);
		break;
#endif
	case LWSSSP_WS:
		printf("%s.protocol ws\n", at);
		break;
	default:
		printf("%s.protocol %d\n", at, p->protocol);
		return;
	}
	text("http_method", p->u.http.method);
	text("http_url", p->u.http.url);
	text("http_multipart_name", p->u.http.multipart_name);
	text("http_multipart_filename", p->u.http.multipart_filename);
	text("http_mime_content_type", p->u.http.multipart_content_type);
	text("http_auth_header", p->u.http.blob_header[0]);
	text("http_dsn_header", p->u.http.blob_header[1]);
	text("http_fwv_header", p->u.http.blob_header[2]);
	text("http_devtype_header", p->u.http.blob_header[3]);
	text("http_auth_preamble", p->u.http.auth_preamble);
	number("http_expect", p->u.http.resp_expect);
	number("http_fail_redirect", p->u.http.fail_redirect);
	text("ws_subprotocol", p->u.http.u.ws.subprotocol);
	number("ws_binary", p->u.http.u.ws.binary);
#if SINCE(4, 2)
	for (i = 0; i < p->u.http.count_respmap; i++)
		printf("%s.http_resp_map[%d] %u %u\n", at, i, p->u.http.respmap[i].resp, p->u.http.respmap[i].state);
#endif
}

static void dump(const lws_ss_policy_t *p)
{
	const lws_ss_policy_t *each;
	int n = 0;

	for (each = p; each; each = each->next)
		n++;
#if SINCE(4, 2)
	{
		const lws_metric_policy_t *m;
		int i;

		for (m = p ? p->metrics : NULL, i = 0; m; m = m->next, i++) {
			snprintf(at, sizeof(at), "metrics[%d]", i);
			text("name", m->name);
			text("report", m->report);
			number("us_schedule", m->us_schedule);
			number("us_halflife", m->us_decay_unit);
			number("min_outlier", m->min_contributors);
		}
	}
#endif
	for (; p; p = p->next) {
		snprintf(at, sizeof(at), "s[%d]", --n);
		stream(p);
	}
}

#if !defined(DUMP_ONLY)
int main(void)
{
#if defined(_ss_socks5_proxy)
	printf("via-socks5 ");
	bytes(_ss_socks5_proxy, strlen(_ss_socks5_proxy));
	putchar('\n');
#endif
	dump(&_ss_static_policy_entry);
	return 0;
}
#endif
