// Leaves the tokens to the dashboard in this tab, copies them, and signs out.

import { keep, signOut } from "/static/session.js";

const said = document.getElementById("copied");
const inputs = document.querySelectorAll("main input");

keep(document.getElementById("access").value, document.getElementById("refresh").value);
// whoever is quicker than this script would come to the dashboard as nobody
document.getElementById("go").hidden = false;

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const input = document.getElementById(button.dataset.copy);
    input.select();
    try {
      await navigator.clipboard.writeText(input.value);
      said.textContent = `The ${button.dataset.copy} token is on the clipboard.`;
    } catch {
      said.textContent = "The browser does not let us copy; the token is selected, copy it by keyboard.";
    }
  });
}

document.getElementById("sign-out").addEventListener("click", () => {
  for (const input of inputs) {
    input.value = "";
  }
  signOut((sentence) => {
    said.textContent = sentence;
  });
});
