// Stands in for https://js.stripe.com/endive/stripe.js: the part of it that shows an embedded checkout. No money moves.
// https://docs.stripe.com/js/embedded_checkout/create

(() => {
  const origin = new URL(/** @type {HTMLScriptElement} */ (document.currentScript).src).origin;
  let isOneThere = false;

  class EmbeddedCheckout {
    /** @param {string} clientSecret */
    constructor(clientSecret) {
      this._frame = document.createElement("iframe");
      this._frame.title = "Checkout";
      // After the #, as what stands there is not sent anywhere.
      this._frame.src = `${origin}/stand-in/checkout.html#${clientSecret}`;
      Object.assign(this._frame.style, { border: "0", width: "100%", height: "32rem", colorScheme: "normal" });
      this._isDestroyed = false;
      this._hear = this._hear.bind(this);
      addEventListener("message", this._hear);
    }

    /** @param {string | HTMLElement} location a selector or an element, which must be empty */
    mount(location) {
      this._refuseIfDestroyed();
      const element = typeof location === "string" ? document.querySelector(location) : location;
      if (!element) {
        throw integrityError(`There is no element ${location} to mount the checkout in.`);
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
      removeEventListener("message", this._hear);
      this._isDestroyed = true;
      isOneThere = false;
    }

    _refuseIfDestroyed() {
      if (this._isDestroyed) {
        throw integrityError("This checkout has been destroyed. Create a new one.");
      }
    }

    /** @param {MessageEvent} event */
    _hear(event) {
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
    if (isOneThere) {
      throw integrityError("There can be one embedded checkout at a time: destroy() the other.");
    }
    isOneThere = true;
    try {
      return new EmbeddedCheckout(clientSecret ?? (await /** @type {Function} */ (fetchClientSecret)()));
    } catch (error) {
      isOneThere = false;
      throw error;
    }
  }

  /** @param {string} message */
  function integrityError(message) {
    return Object.assign(new Error(message), { name: "IntegrationError" });
  }

  function missing() {
    throw integrityError("The stand-in has createEmbeddedCheckoutPage, and nothing else that Stripe.js has.");
  }

  /** @param {string} publishableKey */
  function Stripe(publishableKey) {
    if (!/^pk_(test|live)_/.test(publishableKey)) {
      throw integrityError("Stripe() wants a publishable key: pk_test_... or pk_live_...");
    }
    // @stripe/react-stripe-js knows a Stripe object by the last four.
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
