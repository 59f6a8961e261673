// A page as it was written for an Express or FastAPI server that keeps pictures in memory.

export async function beforePaying(file) {
  const form = new FormData();
  form.append("image", file);
  const upload = await fetch("/api/temp-image-upload", { method: "POST", body: form });
  const { imageId } = await upload.json();
  const session = await fetch("/api/checkout/embedded-session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ imageId }),
  });
  const { client_secret } = await session.json();
  return client_secret;
}

export async function afterPaying(sessionId) {
  const answer = await fetch(`/api/checkout/session-status?session_id=${sessionId}`);
  const { status, metadata } = await answer.json();
  if (status === "complete") {
    const picture = await fetch(`/api/temp-image-retrieve?imageId=${metadata.imageId}`);
    return picture.blob();
  }
}
