// Who is signed in, in this tab: the two tokens are in its sessionStorage, which goes with the tab.

const ACCESS = "customer_orders.access";
// kept to sign out with, and for nothing else: whoever copied it spends it
const REFRESH = "customer_orders.refresh";

export function keep(access, refresh) {
  sessionStorage.setItem(ACCESS, access);
  sessionStorage.setItem(REFRESH, refresh);
}

export function accessToken() {
  return sessionStorage.getItem(ACCESS);
}

export function forget() {
  sessionStorage.removeItem(ACCESS);
  sessionStorage.removeItem(REFRESH);
}

// Ends the session by its refresh token, and leads to the page to sign in. The tab forgets first, whatever comes of that; if the
// service did not do it, `tell` gets a sentence that says so.
export async function signOut(tell) {
  const refresh = sessionStorage.getItem(REFRESH);
  forget();
  try {
    if (refresh !== null) {
      const answer = await fetch("/api/token/revoke", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ refresh }),
      });
      if (!answer.ok) {
        throw new Error(answer.status);
      }
    }
    // the page with tokens is not to be come back to
    location.replace("/login/?signed_out=true");
  } catch {
    tell("Signed out in this tab only: the service did not answer, and your tokens may still be good.");
  }
}
