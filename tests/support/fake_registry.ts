/**
 * An upstream registry with the habits of Docker Hub and others, and with faults on demand.
 *
 * @module
 */
import type { Content } from "./content.ts";
import { Faults } from "./faults.ts";
import { Bucket, type FakeStorage } from "./fake_storage.ts";
import { type Access, basicOf, parseTokenRequest } from "./fake_token.ts";
import {
  extend,
  type HttpServer,
  type ServerEnd,
  type ServerOptions,
  type ServerReply,
  type ServerRequest,
  startHttpServer,
} from "./http_server.ts";
import { blobsOf, contentOf, makeReferrers, type Manifest, manifestsOf, MEDIA } from "./image.ts";
import { serveContent, withoutRange } from "./serve_content.ts";

/** What a request was for. */
export type RequestKind =
  | "ping"
  | "token"
  | "manifest"
  | "blob"
  | "tags"
  | "referrers"
  | "catalog"
  | "storage"
  | "other";

/** One request that the registry saw. */
export interface LogEntry {
  readonly method: string;
  /** The request target as it was sent. */
  readonly target: string;
  readonly kind: RequestKind;
  readonly repository?: string;
  /** Tag or digest. */
  readonly reference?: string;
  readonly headers: Headers;
  readonly body: string;
  /** Who asked: a user's name, `""` for an anonymous token, `undefined` without credentials. */
  user?: string;
  status: number;
  /** Body bytes handed to the socket, once it ended. */
  bytes: number;
  end?: ServerEnd;
}

/** Which requests to count: every given field must agree. */
export interface LogFilter {
  readonly method?: string;
  readonly kind?: RequestKind;
  readonly repository?: string;
  readonly reference?: string;
  readonly status?: number;
  readonly user?: string;
}

/** What can be changed while the registry runs. */
export interface Control {
  /**
   * What is answered in place of the truth, tokens included; undefined for the truth.
   * @default {undefined}
   */
  lie?: (request: ServerRequest, asked: Route) => ServerReply | undefined;
  /** Answered to everything but the token endpoint, e.g. 503. @default {undefined} */
  failWith?: number;
  /** Answered by the token endpoint, e.g. 503. @default {undefined} */
  failTokensWith?: number;
  /** Seconds a token lasts. @default {300} */
  tokenLife: number;
  /** Changes what a token is answered with. @default {(answer) => answer} */
  tokenAnswer: (answer: Readonly<Record<string, unknown>>) => Record<string, unknown>;
  /** The challenge's realm. @default {`<url>/token`} */
  realm: string;
  /** Every manifest GET answers 429 with this Retry-After; HEAD does not. @default {undefined} */
  limited?: { readonly retryAfter?: number | string; readonly heads?: boolean };
  /** The pull limit: sent as headers, counted down by manifest GETs, 429 at zero. @default {undefined} */
  quota?: { readonly limit: number; readonly window: number; remaining: number };
  /** Where blobs are sent. @default {"storage" if the option was given, else "none"} */
  redirectBlobs: "none" | "storage" | "relative";
  /** Where manifests are sent. @default {"none"} */
  redirectManifests: "none" | "storage" | "relative";
  /** @default {307} */
  redirectStatus: 301 | 302 | 303 | 307 | 308;
  /** Rewrites a redirect's Location. @default {(location) => location} */
  location: (location: string, request: ServerRequest) => string;
  /** Seconds a signed URL lasts. @default {300} */
  signatureLife: number;
  /** Whether a tag list's Link is an absolute URL. @default {false} */
  absoluteLinks: boolean;
  /** `missing`: the referrers API answers 404 as old registries do. @default {"api"} */
  referrers: "api" | "missing";
}

/** A running fake registry. */
export interface FakeRegistry extends HttpServer {
  readonly log: LogEntry[];
  readonly faults: Faults;
  readonly control: Control;
  /**
   * Holds a manifest with its children and blobs in a repository, and points the tag at it.
   * With `readers` the repository becomes private to these users.
   */
  add(
    repository: string,
    tag: string | undefined,
    image: Manifest,
    options?: { readers?: readonly string[] },
  ): void;
  /** Holds a blob that no manifest names. */
  addBlob(repository: string, blob: Content): void;
  /** Makes a repository public, or private to some users. */
  setAccess(repository: string, access: "public" | readonly string[]): void;
  /** Removes a tag. */
  untag(repository: string, tag: string): void;
  /** Adds, changes (or with `undefined` removes) a user; tokens issued before keep working until they expire. */
  setUser(username: string, password: string | undefined): void;
  /** Makes all tokens issued so far worthless. */
  revokeTokens(): void;
  /** How many logged requests agree with the filter. */
  count(filter?: LogFilter): number;
  /** GETs of one blob that were not refused: answered with content or with a redirect. */
  blobGets(digest: string): number;
  /** GETs of manifests that were answered with one: what a pull limit counts. */
  readonly pulls: number;
  readonly tokenRequests: number;
}

/** Options for {@linkcode startFakeRegistry}. */
export interface FakeRegistryOptions extends ServerOptions {
  /** @default {"none"} */
  readonly auth?: "none" | "token" | "basic";
  /** Passwords by name. */
  readonly users?: Readonly<Record<string, string>>;
  /** @default {"registry.docker.io"} */
  readonly service?: string;
  /** Where blobs are redirected to. */
  readonly storage?: FakeStorage;
  /** @default {300} seconds */
  readonly tokenLife?: number;
}

interface Repository {
  readers?: Set<string>;
  readonly manifests: Map<string, Manifest>;
  readonly blobs: Map<string, Content>;
  readonly tags: Map<string, string>;
}

/** What a request is for, by its path. */
export interface Route {
  readonly kind: RequestKind;
  readonly repository?: string;
  readonly reference?: string;
}

interface Token {
  readonly user: string;
  readonly access: readonly Access[];
  readonly until: number;
}

const JSON_TYPE = ["content-type", "application/json"] as const;
const API = ["docker-distribution-api-version", "registry/2.0"] as const;

/** Starts a registry that holds nothing yet. */
export async function startFakeRegistry(options: FakeRegistryOptions = {}): Promise<FakeRegistry> {
  const { auth = "none", service = "registry.docker.io", storage } = options;
  const users = new Map(Object.entries(options.users ?? {}));
  const repositories = new Map<string, Repository>();
  const tokens = new Map<string, Token>();
  const refreshTokens = new Map<string, string>();
  const log: LogEntry[] = [];
  const faults = new Faults();
  const bucket = new Bucket({ refuseAuthorization: false });

  const server = await startHttpServer(answer, options);
  const control: Control = {
    tokenLife: options.tokenLife ?? 300,
    tokenAnswer: (answer) => ({ ...answer }),
    realm: `${server.url}/token`,
    redirectBlobs: storage ? "storage" : "none",
    redirectManifests: "none",
    redirectStatus: 307,
    location: (location) => location,
    signatureLife: 300,
    absoluteLinks: false,
    referrers: "api",
  };

  function answer(request: ServerRequest): ServerReply {
    const route = routeOf(request.url.pathname);
    const { method, target, headers } = request;
    const body = new TextDecoder().decode(request.body);
    const entry: LogEntry = { method, target, ...route, headers, body, status: 0, bytes: 0 };
    log.push(entry);
    const fault = faults.next({ method, ...route, headers });
    const reply = dispatch(fault?.ignoreRange ? withoutRange(request) : request, route, entry);
    entry.status = fault?.status ?? reply.status;
    return {
      ...reply,
      fault: fault ?? reply.fault,
      ended: (bytes, end) => {
        entry.bytes = bytes;
        entry.end = end;
        reply.ended?.(bytes, end);
      },
    };
  }

  function dispatch(request: ServerRequest, route: Route, entry: LogEntry): ServerReply {
    const lie = control.lie?.(request, route);
    if (lie) return lie;
    if (route.kind === "storage") return bucket.answer(request);
    if (route.kind === "token") return token(request, entry);
    if (control.failWith) return refuse(control.failWith, "UNAVAILABLE", "Failing on purpose");
    const user = identify(request);
    entry.user = user.name;
    if (!mayEnter(user, route)) return challenge(user, route);
    if (request.method !== "GET" && request.method !== "HEAD") {
      return refuse(405, "UNSUPPORTED", "The operation is unsupported");
    }
    switch (route.kind) {
      case "ping":
        return { status: 200, headers: [JSON_TYPE, API], body: "{}" };
      case "catalog":
        return list(request, "/v2/_catalog", "repositories", [...repositories.keys()]);
      case "other":
        return refuse(404, "NOT_FOUND", "404 page not found");
    }
    const repository = repositories.get(route.repository!);
    if (!repository) return refuse(404, "NAME_UNKNOWN", "Repository name not known to registry");
    const reference = route.reference ?? "";
    switch (route.kind) {
      case "manifest":
        return manifest(request, repository, reference);
      case "blob":
        return blob(request, repository, reference);
      case "tags": {
        const path = `/v2/${route.repository}/tags/list`;
        return list(request, path, "tags", [...repository.tags.keys()], { name: route.repository });
      }
      case "referrers":
        return referrers(request, repository, reference);
    }
  }

  // Who asks, and what they may read

  function identify(request: ServerRequest): { name?: string; token?: Token; bad?: boolean } {
    const header = request.headers.get("authorization");
    if (auth === "none" || header === null) return {};
    const bearer = header.match(/^bearer +(\S+)$/i)?.[1];
    if (auth === "token") {
      const token = bearer === undefined ? undefined : tokens.get(bearer);
      return token && token.until > Date.now() ? { name: token.user, token } : { bad: true };
    }
    const basic = basicOf(header);
    const right = basic && users.get(basic.username) === basic.password;
    return right ? { name: basic.username } : { bad: true };
  }

  function mayRead(user: string | undefined, name: string): boolean {
    const repository = repositories.get(name);
    if (!repository) return false;
    return !repository.readers || (!!user && repository.readers.has(user));
  }

  function mayEnter(who: ReturnType<typeof identify>, route: Route): boolean {
    if (auth === "none") return true;
    if (auth === "basic") {
      return who.name !== undefined &&
        (!route.repository || !repositories.has(route.repository) ||
          mayRead(who.name, route.repository));
    }
    if (!who.token) return false;
    if (route.kind === "catalog") return who.token.access.some((a) => a.type === "registry");
    return !route.repository ||
      who.token.access.some((a) => a.name === route.repository && a.actions.includes("pull"));
  }

  function challenge(who: ReturnType<typeof identify>, route: Route): ServerReply {
    if (auth === "basic") {
      if (who.name !== undefined) return refuse(403, "DENIED", "Requested access is denied");
      return refuse(401, "UNAUTHORIZED", "Authentication required", [
        ["www-authenticate", `Basic realm="fake"`],
      ]);
    }
    const scope = route.kind === "catalog"
      ? `,scope="registry:catalog:*"`
      : route.repository
      ? `,scope="repository:${route.repository}:pull"`
      : "";
    const error = who.bad
      ? `,error="invalid_token"`
      : who.token
      ? `,error="insufficient_scope"`
      : "";
    return refuse(401, "UNAUTHORIZED", "Authentication required", [
      ["www-authenticate", `Bearer realm="${control.realm}",service="${service}"${scope}${error}`],
    ]);
  }

  function token(request: ServerRequest, entry: LogEntry): ServerReply {
    if (control.failTokensWith) {
      return refuse(control.failTokensWith, "UNAVAILABLE", "Failing on purpose");
    }
    const wanted = parseTokenRequest(request);
    const byRefresh = wanted.refreshToken === undefined
      ? undefined
      : refreshTokens.get(wanted.refreshToken);
    const user = byRefresh ?? wanted.username ?? "";
    const right = wanted.refreshToken !== undefined
      ? byRefresh !== undefined
      : wanted.username === undefined ||
        (users.has(user) && users.get(user) === wanted.password);
    if (!right) return refuse(401, "UNAUTHORIZED", "Incorrect username or password");
    entry.user = user;
    const access = wanted.scopes.filter((scope) =>
      scope.type === "registry" ? user !== "" : mayRead(user, scope.name)
    ).map((scope) => ({ ...scope, actions: scope.type === "registry" ? ["*"] : ["pull"] }));
    const name = `token-${crypto.randomUUID()}`;
    tokens.set(name, { user, access, until: Date.now() + control.tokenLife * 1000 });
    const refresh = wanted.offline && user ? `refresh-${crypto.randomUUID()}` : undefined;
    if (refresh) refreshTokens.set(refresh, user);
    return {
      status: 200,
      headers: [JSON_TYPE],
      body: JSON.stringify(control.tokenAnswer({
        token: name,
        access_token: name,
        expires_in: control.tokenLife,
        issued_at: new Date().toISOString(),
        ...refresh && { refresh_token: refresh },
      })),
    };
  }

  // Content

  function manifest(request: ServerRequest, from: Repository, reference: string): ServerReply {
    const get = request.method === "GET";
    const quota = control.quota;
    const limits: [string, string][] = quota
      ? [
        ["ratelimit-limit", `${quota.limit};w=${quota.window}`],
        ["ratelimit-remaining", `${quota.remaining};w=${quota.window}`],
        ["docker-ratelimit-source", "127.0.0.1"],
      ]
      : [];
    const limited = control.limited;
    if ((limited && (get || limited.heads)) || (get && quota && quota.remaining <= 0)) {
      const retryAfter = limited ? limited.retryAfter : quota?.window;
      if (retryAfter !== undefined) limits.push(["retry-after", String(retryAfter)]);
      return refuse(429, "TOOMANYREQUESTS", "You have reached your pull rate limit", limits);
    }
    const found = from.manifests.get(from.tags.get(reference) ?? reference);
    const chosen = found && (from.tags.has(reference) ? negotiate(request, found) : found);
    if (!chosen) return refuse(404, "MANIFEST_UNKNOWN", "Manifest unknown", limits);
    const content = contentOf(chosen.manifest, chosen.mediaType);
    const redirected = redirect(request, content, control.redirectManifests);
    if (redirected) return redirected;
    if (get && quota) {
      quota.remaining--;
      limits[1]![1] = `${quota.remaining};w=${quota.window}`;
    }
    return serveContent(withoutRange(request), content, {
      headers: [["content-type", chosen.mediaType], API, digest(content), ...limits],
      etag: `"${content.digest}"`,
    });
  }

  function blob(request: ServerRequest, from: Repository, reference: string): ServerReply {
    const content = from.blobs.get(reference);
    if (!content) return refuse(404, "BLOB_UNKNOWN", "Blob unknown to registry");
    const redirected = redirect(request, content, control.redirectBlobs);
    if (redirected) return redirected;
    return serveContent(request, content, {
      headers: [["content-type", "application/octet-stream"], API, digest(content)],
      etag: `"${content.digest}"`,
    });
  }

  function redirect(
    request: ServerRequest,
    content: Content,
    where: "none" | "storage" | "relative",
  ): ServerReply | undefined {
    if (where === "none") return undefined;
    if (where === "storage" && !storage) throw new Error("No storage to redirect to");
    const location = where === "storage"
      ? storage!.sign(request.method, content, control.signatureLife)
      : bucket.sign(request.method, content, control.signatureLife);
    return {
      status: control.redirectStatus,
      headers: [["location", control.location(location, request)], API],
    };
  }

  function referrers(request: ServerRequest, from: Repository, subject: string): ServerReply {
    if (control.referrers === "missing") return refuse(404, "NOT_FOUND", "404 page not found");
    if (!/^sha256:[0-9a-f]{64}$/.test(subject)) {
      return refuse(400, "DIGEST_INVALID", "Provided digest is not valid");
    }
    const type = request.url.searchParams.get("artifactType");
    const found = [...from.manifests.values()].filter((m) =>
      m.subject === subject && (type === null || m.artifactType === type)
    );
    const index = makeReferrers(found);
    const filtered = type === null ? [] : [["oci-filters-applied", "artifactType"] as const];
    return {
      status: 200,
      headers: [["content-type", MEDIA.oci.index], API, ...filtered],
      body: index.manifest,
    };
  }

  function list(
    request: ServerRequest,
    path: string,
    key: string,
    names: string[],
    extra: Record<string, unknown> = {},
  ): ServerReply {
    const { searchParams } = request.url;
    const last = searchParams.get("last");
    const n = searchParams.has("n") ? Number(searchParams.get("n")) : Infinity;
    const rest = names.sort().filter((name) => last === null || name > last);
    const page = rest.slice(0, n);
    const headers: (readonly [string, string])[] = [JSON_TYPE, API];
    if (n > 0 && rest.length > n) {
      const next = new URLSearchParams({ last: page.at(-1)!, n: String(n) });
      const origin = control.absoluteLinks ? server.url : "";
      headers.push(["link", `<${origin}${path}?${next}>; rel="next"`]);
    }
    return { status: 200, headers, body: JSON.stringify({ ...extra, [key]: page }) };
  }

  // The holder's side

  function repositoryOf(name: string): Repository {
    let repository = repositories.get(name);
    if (!repository) {
      repository = { manifests: new Map(), blobs: new Map(), tags: new Map() };
      repositories.set(name, repository);
    }
    return repository;
  }

  function count(filter: LogFilter = {}): number {
    const wanted = Object.entries(filter) as [keyof LogFilter, unknown][];
    return log.filter((entry) => wanted.every(([key, value]) => entry[key] === value)).length;
  }

  return extend(server, {
    log,
    faults,
    control,
    add(
      name: string,
      tag: string | undefined,
      image: Manifest,
      options: { readers?: readonly string[] } = {},
    ) {
      const repository = repositoryOf(name);
      for (const m of manifestsOf(image)) repository.manifests.set(m.digest, m);
      for (const b of blobsOf(image)) repository.blobs.set(b.digest, b);
      if (tag !== undefined) repository.tags.set(tag, image.digest);
      if (options.readers) repository.readers = new Set(options.readers);
    },
    addBlob(name: string, blob: Content) {
      repositoryOf(name).blobs.set(blob.digest, blob);
    },
    setAccess(name: string, access: "public" | readonly string[]) {
      repositoryOf(name).readers = access === "public" ? undefined : new Set(access);
    },
    untag(name: string, tag: string) {
      repositoryOf(name).tags.delete(tag);
    },
    setUser(username: string, password: string | undefined) {
      if (password === undefined) users.delete(username);
      else users.set(username, password);
    },
    revokeTokens() {
      tokens.clear();
      refreshTokens.clear();
    },
    count,
    blobGets: (reference: string) =>
      log.filter((e) =>
        e.kind === "blob" && e.method === "GET" && e.reference === reference && e.status < 400
      ).length,
    get pulls() {
      return log.filter((e) => e.kind === "manifest" && e.method === "GET" && e.status < 400)
        .length;
    },
    get tokenRequests() {
      return count({ kind: "token" });
    },
  });
}

const ROUTES: readonly [RequestKind, RegExp][] = [
  ["ping", /^\/v2\/?$/],
  ["token", /^\/token$/],
  ["storage", /^\/storage\//],
  ["catalog", /^\/v2\/_catalog$/],
  ["manifest", /^\/v2\/(?<repository>.+)\/manifests\/(?<reference>[^/]+)$/],
  ["blob", /^\/v2\/(?<repository>.+)\/blobs\/(?<reference>[^/]+)$/],
  ["tags", /^\/v2\/(?<repository>.+)\/tags\/list$/],
  ["referrers", /^\/v2\/(?<repository>.+)\/referrers\/(?<reference>[^/]+)$/],
];

function routeOf(pathname: string): Route {
  const path = decodeURIComponent(pathname);
  for (const [kind, pattern] of ROUTES) {
    const match = pattern.exec(path);
    if (match) {
      return {
        kind,
        repository: match.groups?.repository,
        reference: match.groups?.reference,
      };
    }
  }
  return { kind: "other" };
}

/** As Docker's registry: who cannot read an index gets its linux/amd64 image, who cannot read that either gets 404. */
function negotiate(request: ServerRequest, found: Manifest): Manifest | undefined {
  const accept = request.headers.get("accept") ?? "";
  const types = accept.split(",").map((type) => type.split(";")[0]!.trim());
  const accepts = (m: Manifest) => types.includes(m.mediaType) || types.includes("*/*");
  if (accepts(found)) return found;
  if (!found.children.length) return accept === "" ? found : undefined;
  const child = found.children.find((m) => m.platform?.architecture === "amd64");
  return child && (accept === "" || accepts(child)) ? child : undefined;
}

function digest(content: Content): readonly [string, string] {
  return ["docker-content-digest", content.digest];
}

function refuse(
  status: number,
  code: string,
  message: string,
  headers: readonly (readonly [string, string])[] = [],
): ServerReply {
  const body = JSON.stringify({ errors: [{ code, message, detail: null }] });
  return { status, headers: [JSON_TYPE, API, ...headers], body };
}
