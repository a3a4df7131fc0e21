// Swagger UI, signed in with the access token that the tokens page left in this tab.

import { accessToken, forget, signOut as endSession } from "/static/session.js";

const who = document.getElementById("who");
const signIn = document.getElementById("sign-in");
const signOut = document.getElementById("sign-out");
let lastRequest = null;

function bearer(value) {
  return /^bearer /i.test(value) ? value : `Bearer ${value}`;
}

// A 401 to a request that carried our token means that the token is no good any more; any other 401 is about
// something else, such as a refresh token or nobody having signed in.
function expired(request) {
  const sent = request && request.headers && request.headers.Authorization;
  return Boolean(sent) && accessToken() !== null;
}

function signedOut(message) {
  forget();
  window.ui.authActions.logout(["Bearer"]);
  who.textContent = message;
  signIn.hidden = false;
  signOut.hidden = true;
}

async function showWho(token) {
  const answer = await fetch("/api/me", { headers: { Authorization: bearer(token) } });
  if (answer.ok) {
    const me = await answer.json();
    who.textContent = `${me.email} (${me.role})`;
    signIn.hidden = true;
    signOut.hidden = false;
  } else if (answer.status === 401) {
    signedOut("Your sign-in has expired.");
  }
}

window.ui = SwaggerUIBundle({
  url: "/api/api.json",
  dom_id: "#dashboard",
  deepLinking: true,
  validatorUrl: null,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  requestInterceptor: (request) => {
    if (request.headers && request.headers.Authorization) {
      request.headers.Authorization = bearer(request.headers.Authorization);
    }
    lastRequest = request;
    return request;
  },
  responseInterceptor: (response) => {
    if (response.status === 401 && expired(lastRequest)) {
      signedOut("Your sign-in has expired.");
    }
    return response;
  },
  onComplete: () => {
    const token = accessToken();
    if (token) {
      window.ui.preauthorizeApiKey("Bearer", token);
      showWho(token);
    }
  },
});

signOut.addEventListener("click", () => {
  endSession(signedOut);
  window.ui.authActions.logout(["Bearer"]);
});

// back to the operation that is open here
signIn.addEventListener("click", () => {
  if (/^#[\w/-]+$/.test(location.hash)) {
    signIn.search = new URLSearchParams({ next: `/${location.hash}` });
  }
});
