"use strict";
// Leaves the access token to the dashboard in this tab (sessionStorage goes with the tab). The refresh token is
// stored nowhere.

sessionStorage.setItem("customer_orders.access", document.getElementById("access").value);

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const input = document.getElementById(button.dataset.copy);
    const said = document.getElementById("copied");
    input.select();
    try {
      await navigator.clipboard.writeText(input.value);
      said.textContent = `The ${button.dataset.copy} token is on the clipboard.`;
    } catch {
      said.textContent = "The browser does not let us copy; the token is selected, copy it by keyboard.";
    }
  });
}
