// An OpenID provider for the tests: the real `oidc-provider` library behind one loopback port.
//
//   node oidc.mjs '{"port": 0, "ttl_s": 60, "clients": [{"id": "site-1", "secret": "…",
//                    "agent_id": "site-1", "connectors": ["ldap"]}]}'
//
// The first line on stdout is {"issuer", "discovery", "jwks", "token", "key"}. The process ends
// when its stdin closes, so a test that dies takes its provider along. Beside the provider's own
// paths the port answers:
//
//   POST /control/rotate?keep=0|1   a new signing key; keep=1 still publishes the old one
//   POST /control/outage?on=0|1     every other path answers 503
//   GET  /control/counts            how often discovery, jwks and token were asked for
import http from 'node:http';
import { generateKeyPairSync, randomUUID, webcrypto } from 'node:crypto';

globalThis.crypto ??= webcrypto;
const { default: Provider } = await import('oidc-provider');

const settings = JSON.parse(process.argv[2] ?? '{}');
const algorithm = settings.alg ?? 'RS256';
const clients = new Map((settings.clients ?? []).map((client) => [client.id, client]));

function newKey() {
    const { privateKey } =
        algorithm === 'ES256'
            ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
            : generateKeyPairSync('rsa', { modulusLength: 2048 });
    return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg: algorithm, use: 'sig' };
}

// The library signs ID tokens with RS256 unless told otherwise, and wants a key for it.
function clientMetadata(client) {
    return {
        client_id: client.id,
        client_secret: client.secret,
        grant_types: ['client_credentials'],
        response_types: [],
        redirect_uris: [],
        token_endpoint_auth_method: client.auth_method ?? 'client_secret_basic',
        id_token_signed_response_alg: algorithm,
    };
}

function build(issuer, keys) {
    const provider = new Provider(issuer, {
        jwks: { keys },
        clients: [...clients.values()].map(clientMetadata),
        features: {
            clientCredentials: { enabled: true },
            devInteractions: { enabled: false },
            resourceIndicators: {
                enabled: true,
                defaultResource: () => 'urn:nowconnect',
                useGrantedResource: () => true,
                getResourceServerInfo: () => ({
                    scope: '',
                    audience: settings.audience ?? 'nowconnect',
                    accessTokenTTL: settings.ttl_s ?? 60,
                    accessTokenFormat: 'jwt',
                    jwt: { sign: { alg: algorithm } },
                }),
            },
        },
        extraTokenClaims(_ctx, token) {
            const client = clients.get(token.clientId);
            return { agent_id: client?.agent_id ?? token.clientId, connectors: client?.connectors ?? [] };
        },
    });
    provider.on('server_error', (_ctx, error) => console.error(error));
    return provider.callback();
}

let keys = [newKey()];
let outage = false;
let provider;
const counts = { discovery: 0, jwks: 0, token: 0 };

function control(url, response) {
    const flag = (name) => url.searchParams.get(name) === '1';
    if (url.pathname === '/control/rotate') {
        keys = flag('keep') ? [newKey(), ...keys] : [newKey()];
        provider = build(issuer, keys);
    } else if (url.pathname === '/control/outage') {
        outage = flag('on');
    } else if (url.pathname !== '/control/counts') {
        response.writeHead(404).end();
        return;
    }
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ key: keys[0].kid, keys: keys.length, outage, counts }));
}

const server = http.createServer((request, response) => {
    const url = new URL(request.url, issuer);
    if (url.pathname.startsWith('/control/')) return control(url, response);
    if (outage) return response.writeHead(503).end();
    if (url.pathname === '/.well-known/openid-configuration') counts.discovery += 1;
    if (url.pathname === '/jwks') counts.jwks += 1;
    if (url.pathname === '/token') counts.token += 1;
    return provider(request, response);
});

await new Promise((resolve) => server.listen(settings.port ?? 0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
provider = build(issuer, keys);
console.log(
    JSON.stringify({
        issuer,
        discovery: `${issuer}/.well-known/openid-configuration`,
        jwks: `${issuer}/jwks`,
        token: `${issuer}/token`,
        key: keys[0].kid,
    }),
);
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
