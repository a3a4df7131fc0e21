"use strict";
// Fetches the page every few seconds and puts new messages in place, so that a scrolled page stays where it is.

const SECONDS = 2;

setInterval(async () => {
  try {
    const answer = await fetch(location.href);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const shown = document.querySelector("main");
    const fresh = page.querySelector("main.phones");
    if (answer.ok && fresh && fresh.innerHTML !== shown.innerHTML) {
      shown.replaceWith(fresh);
    }
  } catch {
    // the server is being restarted; the next look finds it
  }
}, SECONDS * 1000);
