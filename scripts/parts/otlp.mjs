// An OTLP receiver for the tests: Elastic's mock server on free loopback ports.
//
//   node otlp.mjs
//
// The first line on stdout is {"http", "grpc"}. After that each received span is one line:
// {"service", "name", "trace", "span", "parent", "attributes"}, and each received log record is
// one: {"service", "scope", "severity", "body", "log_trace", "log_attributes"}. The process ends
// when its stdin closes.
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
const { MockOtlpServer } = require('@elastic/mockotlpserver');

const hex = (bytes) => (bytes ? Buffer.from(bytes).toString('hex') : '');

function plain(value) {
    if (value == null) return null;
    for (const key of ['stringValue', 'intValue', 'boolValue', 'doubleValue']) {
        // A decoded message inherits the defaults of what it does not hold.
        if (Object.hasOwn(value, key) && value[key] != null) return key === 'intValue' ? Number(value[key]) : value[key];
    }
    return value.arrayValue ? value.arrayValue.values.map(plain) : null;
}

const attributes = (list) => Object.fromEntries((list ?? []).map(({ key, value }) => [key, plain(value)]));

function onTrace(message) {
    for (const resource of message.resourceSpans ?? []) {
        const service = attributes(resource.resource?.attributes)['service.name'] ?? '';
        for (const scope of resource.scopeSpans ?? []) {
            for (const span of scope.spans ?? []) {
                console.log(
                    JSON.stringify({
                        service,
                        name: span.name,
                        trace: hex(span.traceId),
                        span: hex(span.spanId),
                        parent: hex(span.parentSpanId),
                        attributes: attributes(span.attributes),
                    }),
                );
            }
        }
    }
}

function onLogs(message) {
    for (const resource of message.resourceLogs ?? []) {
        const service = attributes(resource.resource?.attributes)['service.name'] ?? '';
        for (const scope of resource.scopeLogs ?? []) {
            for (const record of scope.logRecords ?? []) {
                console.log(
                    JSON.stringify({
                        service,
                        scope: scope.scope?.name ?? '',
                        severity: record.severityText ?? '',
                        body: plain(record.body),
                        log_trace: hex(record.traceId),
                        log_attributes: attributes(record.attributes),
                    }),
                );
            }
        }
    }
}

const server = new MockOtlpServer({
    logLevel: 'fatal',
    services: ['http', 'grpc'],
    httpHostname: '127.0.0.1',
    httpPort: 0,
    grpcHostname: '127.0.0.1',
    grpcPort: 0,
    onTrace,
    onLogs,
});
await server.start();
const address = (url) => String(url).replace(/\/$/, '');
console.log(JSON.stringify({ http: address(server.httpUrl), grpc: address(server.grpcUrl) }));
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
