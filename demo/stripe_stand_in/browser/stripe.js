// Stands in for https://js.stripe.com/endive/stripe.js. It shows an embedded checkout and nothing else; no money moves.
// https://docs.stripe.com/js/embedded_checkout/create

(() => {
  const origin = new URL(/** @type {HTMLScriptElement} */ (document.currentScript).src).origin;
  let hasCheckout = false;

  class EmbeddedCheckout {
    /** @param {string} clientSecret */
    constructor(clientSecret) {
      this._frame = document.createElement("iframe");
      this._frame.title = "Checkout";
      // Browsers do not send the part after the #.
      this._frame.src = `${origin}/stand-in/checkout.html#${clientSecret}`;
      // The height until the frame reports its own.
      Object.assign(this._frame.style, {
        border: "0",
        display: "block",
        width: "100%",
        height: "24rem",
        colorScheme: "normal",
      });
      this._isDestroyed = false;
      this._receive = this._receive.bind(this);
      addEventListener("message", this._receive);
    }

    /** @param {string | HTMLElement} location a selector or an empty element */
    mount(location) {
      this._refuseIfDestroyed();
      const element = typeof location === "string" ? document.querySelector(location) : location;
      if (!element) {
        throw integrationError(`There is no element ${location} to mount the checkout in.`);
      }
      element.append(this._frame);
    }

    unmount() {
      this._refuseIfDestroyed();
      this._frame.remove();
    }

    destroy() {
      this._refuseIfDestroyed();
      this.unmount();
      removeEventListener("message", this._receive);
      this._isDestroyed = true;
      hasCheckout = false;
    }

    _refuseIfDestroyed() {
      if (this._isDestroyed) {
        throw integrationError("This checkout has been destroyed. Create a new one.");
      }
    }

    /** @param {MessageEvent} event */
    _receive(event) {
      if (event.source !== this._frame.contentWindow || event.origin !== origin) {
        return;
      }
      if (event.data.height) {
        this._frame.style.height = `${event.data.height}px`;
      }
      if (event.data.returnUrl) {
        location.assign(event.data.returnUrl);
      }
    }
  }

  /** @param {{ clientSecret?: string, fetchClientSecret?: () => Promise<string> }} options */
  async function createEmbeddedCheckoutPage({ clientSecret, fetchClientSecret }) {
    if (hasCheckout) {
      throw integrationError("There can be one embedded checkout at a time. Call destroy() on the other.");
    }
    hasCheckout = true;
    try {
      return new EmbeddedCheckout(clientSecret ?? (await /** @type {Function} */ (fetchClientSecret)()));
    } catch (error) {
      hasCheckout = false;
      throw error;
    }
  }

  /** @param {string} message */
  function integrationError(message) {
    return Object.assign(new Error(message), { name: "IntegrationError" });
  }

  function missing() {
    throw integrationError("The stand-in has createEmbeddedCheckoutPage, and nothing else that Stripe.js has.");
  }

  /** @param {string} publishableKey */
  function Stripe(publishableKey) {
    if (!/^pk_(test|live)_/.test(publishableKey)) {
      throw integrationError("Stripe() needs a publishable key: pk_test_... or pk_live_...");
    }
    // @stripe/react-stripe-js checks for the last four methods.
    return {
      createEmbeddedCheckoutPage,
      initEmbeddedCheckout: missing,
      elements: missing,
      createToken: missing,
      createPaymentMethod: missing,
      confirmCardPayment: missing,
    };
  }

  Object.assign(window, { Stripe: Object.assign(Stripe, { version: "endive" }) });
})();
