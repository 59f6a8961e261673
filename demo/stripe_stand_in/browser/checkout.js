// The inside of the stand-in's checkout: says what is sold, and asks what the customer does.

const sessionId = location.hash.slice(1).split("_secret_")[0];
const session = `/stand-in/sessions/${encodeURIComponent(sessionId)}`;

/** @param {string} id */
const element = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @param {object} message */
const tellPage = (message) => parent.postMessage(message, "*"); // of any origin; it had the session before us

/** @param {string} text */
const tellCustomer = (text) => {
  element("news").textContent = text;
};

/** @param {boolean} isOpen */
function offer(isOpen) {
  element("choices").hidden = !isOpen;
  element("open").hidden = isOpen;
}

async function show() {
  const { name, description, amount, currency, decimals, status } = await ask(session);
  const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  const price = new Intl.NumberFormat("en", { style: "currency", currency, ...digits }).format(amount / 10 ** decimals);
  element("name").textContent = name;
  element("description").textContent = description;
  element("amount").textContent = price;
  element("pay").textContent = `Pay ${price}`;
  element("choices").hidden = status !== "open";
  tellCustomer(status === "open" ? "" : `This checkout is ${status}; nothing can be paid with it any more.`);
}

/** @param {"pay" | "pay-later" | "decline"} what */
async function act(what) {
  const answer = await ask(`${session}/${what}`, { method: "POST" });
  if (answer.return_url) {
    tellPage({ returnUrl: answer.return_url });
  } else {
    tellCustomer("Your card was declined. Nothing was charged; try another.");
  }
}

/**
 * @param {string} url
 * @param {RequestInit} [init]
 */
async function ask(url, init) {
  const response = await fetch(url, init);
  const answer = await response.json();
  if (!response.ok) {
    throw new Error(answer.error);
  }
  return answer;
}

/** @param {Promise<void>} work */
const orTell = (work) => work.catch((error) => tellCustomer(error.message));

// Where it cannot be done, such as in a checkout that is over by now, show what the checkout has become.
/** @param {Promise<void>} work */
const orShow = (work) => orTell(work.catch(show));

for (const what of /** @type {const} */ (["pay", "pay-later", "decline"])) {
  element(what).addEventListener("click", () => orShow(act(what)));
}
element("close").addEventListener("click", () => {
  offer(false);
  tellCustomer("You have closed the checkout. Nothing was charged.");
});
element("open").addEventListener("click", () => {
  offer(true);
  orTell(show());
});
new ResizeObserver(() => tellPage({ height: document.body.offsetHeight })).observe(document.body);
orTell(show());
