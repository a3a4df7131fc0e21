// A certified OpenID provider (npm oidc-provider) on loopback, with the scopes, claims and prompts that Google has.
// Everybody may sign in with any address; the account's id is made of it. Keys are new with each start.

import { createServer } from 'node:https';
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Provider, interactionPolicy } from 'oidc-provider';

const { ISSUER, CLIENT_ID, CLIENT_SECRET, REDIRECT_URI, CERTIFICATE } = process.env;
const EMAIL = 'https://www.googleapis.com/auth/userinfo.email';
const PROFILE = 'https://www.googleapis.com/auth/userinfo.profile';

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const kid = randomBytes(8).toString('hex');

const policy = interactionPolicy.base();
policy.add(new interactionPolicy.Prompt({ name: 'select_account', requestable: true }), 0);

const provider = new Provider(ISSUER, {
  clients: [{
    client_id: CLIENT_ID,
    client_secret: CLIENT_SECRET,
    redirect_uris: [REDIRECT_URI],
    grant_types: ['authorization_code'],
    response_types: ['code'],
  }],
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'RS256' }] },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  scopes: ['openid', EMAIL, PROFILE],
  claims: { openid: ['sub'], [EMAIL]: ['email', 'email_verified', 'hd'], [PROFILE]: ['name'] },
  // Google tells all of it in the id_token
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  features: { devInteractions: { enabled: false } },
  interactions: { policy, url: (_, interaction) => `/accounts/${interaction.uid}` },
  findAccount: (_, accountId) => ({
    accountId,
    claims: () => ({
      sub: createHash('sha256').update(accountId).digest('hex'),
      email: accountId,
      email_verified: true,
      name: accountId.split('@')[0],
      hd: accountId.split('@')[1],
    }),
  }),
  // whoever signs in consents
  loadExistingGrant: async (ctx) => {
    const grant = new ctx.oidc.provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope(`openid ${EMAIL} ${PROFILE}`);
    await grant.save();
    return grant;
  },
});

const FORM = `<!doctype html><html lang="en"><title>Choose an account</title><h1>Choose an account</h1>
<form method="post"><label>E-mail <input name="email" value="jane@shop.example"></label>
<button>Continue</button> <button name="cancel" value="yes">Cancel</button></form>`;

async function choose(request, response) {
  const details = await provider.interactionDetails(request, response);
  if (request.method !== 'POST') {
    response.setHeader('Content-Type', 'text/html; charset=utf-8');
    response.end(FORM);
    return;
  }
  let body = '';
  for await (const chunk of request) body += chunk;
  const form = new URLSearchParams(body);
  const result = form.has('cancel')
    ? { error: 'access_denied', error_description: 'The person changed their mind' }
    : { login: { accountId: form.get('email') }, [details.prompt.name]: { accountId: form.get('email') } };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
}

const oidc = provider.callback();
const pem = readFileSync(CERTIFICATE);
const server = createServer({ key: pem, cert: pem }, (request, response) => {
  if (!request.url.startsWith('/accounts/')) return oidc(request, response);
  return choose(request, response).catch((error) => {
    console.error(error);
    response.statusCode = 500;
    response.end();
  });
});
server.listen(Number(new URL(ISSUER).port), '127.0.0.1', () => console.log(`listening at ${ISSUER}`));
