// The page inside the checkout's frame: it shows what is sold and lets the customer pay or not.

const sessionId = location.hash.slice(1).split("_secret_")[0];
const session = `/stand-in/sessions/${encodeURIComponent(sessionId)}`;

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @param {object} message */
const sendToPage = (message) => parent.postMessage(message, "*"); // any origin: that page has the session already

/** @param {string} text */
const showMessage = (text) => {
  element("message").textContent = text;
};

/** @param {boolean} isOpen */
function setOpen(isOpen) {
  element("choices").hidden = !isOpen;
  element("open").hidden = isOpen;
}

async function show() {
  const { name, description, amount, currency, decimals, status } = await request(session);
  const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  const price = new Intl.NumberFormat("en", { style: "currency", currency, ...digits }).format(amount / 10 ** decimals);
  element("name").textContent = name;
  element("description").textContent = description;
  element("amount").textContent = price;
  element("pay").textContent = `Pay ${price}`;
  element("choices").hidden = status !== "open";
  showMessage(status === "open" ? "" : `This checkout is ${status} and can no longer be paid.`);
}

/** @param {"pay" | "pay-later" | "decline"} change */
async function act(change) {
  const answer = await request(`${session}/${change}`, { method: "POST" });
  if (answer.return_url) {
    sendToPage({ returnUrl: answer.return_url });
  } else {
    showMessage("Your card was declined. Nothing was charged. Please try another card.");
  }
}

/**
 * @param {string} url
 * @param {RequestInit} [init]
 */
async function request(url, init) {
  const response = await fetch(url, init);
  const answer = await response.json();
  if (!response.ok) {
    throw new Error(answer.error);
  }
  return answer;
}

/** @param {Promise<void>} work */
const orShowError = (work) => work.catch((error) => showMessage(error.message));

for (const change of /** @type {const} */ (["pay", "pay-later", "decline"])) {
  // If the session has ended, show its state.
  element(change).addEventListener("click", () => orShowError(act(change).catch(show)));
}
element("close").addEventListener("click", () => {
  setOpen(false);
  showMessage("You closed the checkout. Nothing was charged.");
});
element("open").addEventListener("click", () => {
  setOpen(true);
  orShowError(show());
});
new ResizeObserver(() => sendToPage({ height: document.body.offsetHeight })).observe(document.body);
orShowError(show());
