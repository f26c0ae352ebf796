/**
 * The page's shell: it switches between views.
 *
 * @module
 */
import { send, whenUnauthorized } from "./api.js";
import { h } from "./dom.js";
import { ago } from "./format.js";
import { language, remember, setLanguage, t, translate } from "./i18n.js";
import { Live } from "./live.js";
import { notify } from "./notice.js";
import { textOf } from "./parts.js";
import { parseRoute } from "./router.js";
import { connectView } from "./views/connect.js";
import { imageView } from "./views/image.js";
import { imagesView } from "./views/images.js";
import { loginView } from "./views/login.js";
import { overviewView } from "./views/overview.js";
import { upkeepView } from "./views/upkeep.js";

/** The views. Each mounts into `main` and returns a function that unmounts it. */
const VIEWS = {
  "/": { title: "nav.overview", mount: overviewView },
  "/images": { title: "nav.images", mount: imagesView },
  "/image": { title: "nav.images", mount: imageView, within: "/images" },
  "/upkeep": { title: "nav.upkeep", mount: upkeepView },
  "/connect": { title: "nav.connect", mount: connectView },
};
const MENU = ["/", "/images", "/upkeep", "/connect"];

const main = document.getElementById("main");
const live = new Live();
let end = () => {};
let needsToken = false;
let lastUp = Date.now();

function show({ focus = true } = {}) {
  end();
  const route = parseRoute(location.hash);
  const view = needsToken
    ? { title: "login.title", mount: loginView }
    : VIEWS[route.path] ?? VIEWS["/"];
  showMenu(view.within ?? route.path);
  main.replaceChildren();
  end = view.mount(main, { live, route, onLogin }) ?? (() => {});
  document.title = `${t(view.title)} · deno-docker-proxy`;
  if (focus) {
    (main.querySelector("[data-focus]") ?? main).focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

function showMenu(path) {
  document.getElementById("nav").replaceChildren(...MENU.map((to) =>
    h(
      "li",
      {},
      h("a", { href: `#${to}`, "aria-current": to === path ? "page" : null }, t(VIEWS[to].title)),
    )
  ));
  document.querySelector("nav").hidden = needsToken;
}

function onLogin() {
  needsToken = false;
  remember("signedIn", "true");
  showLogout();
  live.start();
  show();
}

function showLogout() {
  let isSignedIn = false;
  try {
    isSignedIn = localStorage.getItem("signedIn") === "true";
  } catch {
    // Storage may be disabled.
  }
  document.getElementById("logout").hidden = needsToken || !isSignedIn;
}

function requireToken() {
  if (needsToken) return;
  needsToken = true;
  remember("signedIn", undefined);
  live.stop();
  showBanner("up");
  showLogout();
  show();
}

function showBanner(connection) {
  const banner = document.getElementById("banner");
  const isDown = connection === "down";
  if (connection === "up") lastUp = Date.now();
  if (isDown) banner.textContent = t("error.downSince", { ago: ago(lastUp) });
  banner.hidden = !isDown;
  document.body.classList.toggle("down", isDown);
}

function preferences() {
  const languages = document.getElementById("language");
  languages.value = language();
  languages.addEventListener("change", () => {
    setLanguage(languages.value);
    translate(document);
    showBanner(live.state.connection);
    show({ focus: false });
  });
  const themes = document.getElementById("theme");
  themes.value = document.documentElement.dataset.theme ?? "auto";
  themes.addEventListener("change", () => {
    const theme = themes.value;
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    remember("theme", theme === "auto" ? undefined : theme);
  });
  document.getElementById("logout").addEventListener("click", async () => {
    try {
      await send("POST", "api/logout", { body: {} });
      requireToken();
    } catch (error) {
      notify(textOf(error), { isError: true });
    }
  });
  // The fragment is the route: the link to the content would change it.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    main.focus();
  });
}

whenUnauthorized(requireToken);
translate(document);
preferences();
showLogout();
live.listen((state, what) => {
  if (what === "connection") showBanner(state.connection);
  if (what === "overview") {
    lastUp = Date.now();
    document.getElementById("version").textContent = state.overview.version;
  }
});
addEventListener("hashchange", () => show());
live.start();
show({ focus: false });
