import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { HeroMe } from "./HeroMe.jsx";

createRoot(document.getElementById("root")).render(
  <StrictMode>
    <HeroMe />
  </StrictMode>,
);
