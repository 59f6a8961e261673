// EmbeddedCheckoutProvider shows nothing if fetchClientSecret fails or Stripe.js does not load. So Order first awaits
// the client secret and Stripe.js. StrictMode runs effects twice in development, and retrieveImage returns the picture
// both times.

import { useEffect, useState } from "react";
import { EmbeddedCheckout, EmbeddedCheckoutProvider } from "@stripe/react-stripe-js";
import { loadStripe } from "@stripe/stripe-js";
import { createCheckoutSession, retrieveImage, sessionStatus, setBaseUrl, setHeicDecoder, uploadImage } from "heroimg";

setBaseUrl("https://pictures.example.com");
setHeicDecoder(() => import("libheif-js/wasm-bundle"));

// The Back button may show an old checkout: reload the page, unless it shows the only copy of the picture.
addEventListener("pageshow", ({ persisted }) => {
  if (persisted && !document.querySelector("a[download]")) {
    location.reload();
  }
});

export function HeroMe() {
  const [sessionId] = useState(() => new URLSearchParams(location.search).get("session_id"));
  return sessionId ? <Return sessionId={sessionId} /> : <Order />;
}

function Order({ notice = "" }) {
  const [progress, setProgress] = useState([0, "preparing"]);
  const [isBusy, setIsBusy] = useState(false); // disables the input
  const [checkout, setCheckout] = useState(null);
  const [problem, setProblem] = useState(notice);

  async function order(input) {
    const [file] = input.files;
    input.value = ""; // the same file can be chosen again
    if (!file) {
      return;
    }
    setProblem("");
    setIsBusy(true);
    try {
      const imageId = await uploadImage(file, { fit: { maxEdge: 2048 }, onProgress: (...now) => setProgress(now) });
      const clientSecret = await createCheckoutSession(imageId);
      setCheckout({ stripe: await loadStripe("pk_test_..."), options: { clientSecret } });
    } catch (error) {
      setProblem(error.message);
      setIsBusy(false);
    }
  }

  if (checkout) {
    return (
      <EmbeddedCheckoutProvider {...checkout}>
        <EmbeddedCheckout />
      </EmbeddedCheckoutProvider>
    );
  }
  return (
    <form>
      <label>
        Your picture
        <input type="file" accept="image/*,.heic,.heif" disabled={isBusy} onChange={({ target }) => order(target)} />
      </label>
      <progress max={1} value={progress[0]} /> {isBusy && progress[1]}
      <p role="alert">{problem}</p>
    </form>
  );
}

function Return({ sessionId }) {
  const [address, setAddress] = useState("");
  const [news, setNews] = useState("Fetching your picture…");
  const [isUnpaid, setIsUnpaid] = useState(false); // lets the customer order again

  useEffect(() => {
    let isShown = true;
    const onWait = (error, seconds) => isShown && setNews(`${error.message} We try again in ${seconds} s.`);
    fetchPicture(sessionId, onWait).then(
      (blob) => {
        if (isShown) {
          setAddress(URL.createObjectURL(blob)); // the only copy: let the customer save it
          history.replaceState(null, "", location.pathname);
        }
      },
      (error) => {
        if (isShown) {
          setNews(error.message);
          setIsUnpaid(["open", "expired"].includes(error.cause));
        }
      },
    );
    return () => {
      isShown = false;
    };
  }, [sessionId]);

  if (isUnpaid) {
    return <Order notice={news} />;
  }
  return address ? (
    <a href={address} download>
      Save your picture
    </a>
  ) : (
    <p role="status">{news}</p>
  );
}

async function fetchPicture(sessionId, onWait) {
  const { status, payment_status, metadata } = await sessionStatus(sessionId, { onWait });
  if (status !== "complete" || payment_status === "unpaid") {
    const sentence = status === "expired" ? "The time to pay ran out." : "The payment is not complete yet.";
    throw new Error(sentence, { cause: status });
  }
  return retrieveImage(metadata.imageId, { onWait });
}
