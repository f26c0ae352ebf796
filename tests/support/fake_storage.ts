/**
 * Object storage behind presigned URLs, with the habits of S3 and R2: the signature is bound to the method, lasts
 * minutes, and any Authorization header is refused.
 *
 * @module
 */
import type { Content } from "./content.ts";
import { Faults } from "./faults.ts";
import {
  extend,
  type HttpServer,
  type ServerEnd,
  type ServerOptions,
  type ServerReply,
  type ServerRequest,
  startHttpServer,
} from "./http_server.ts";
import { serveContent, withoutRange } from "./serve_content.ts";

/** One request that storage saw. */
export interface StorageEntry {
  readonly method: string;
  readonly target: string;
  readonly headers: Headers;
  readonly digest?: string;
  status: number;
  /** Body bytes handed to the socket, once it ended. */
  bytes: number;
  end?: ServerEnd;
}

/** A running storage server. */
export interface FakeStorage extends HttpServer {
  readonly log: StorageEntry[];
  /** Rules see kind `storage` and the digest as `reference`. */
  readonly faults: Faults;
  /** Requests that carried Authorization, all of which were refused. */
  readonly authorizations: readonly StorageEntry[];
  /** Requests that were served (200 or 206), optionally of one method or digest. */
  count(filter?: { method?: string; digest?: string }): number;
  /** A URL for one content and method, valid for `life` seconds (300). */
  sign(method: string, content: Content, life?: number): string;
}

/** Options for {@linkcode startFakeStorage}. */
export interface StorageOptions extends ServerOptions {
  /** The host and port that signed URLs name. @default {the address it listens on} */
  readonly publicHost?: string;
  /** Whether an answer has an ETag. @default {true} */
  readonly etag?: boolean;
}

/** Starts a storage server. */
export async function startFakeStorage(options: StorageOptions = {}): Promise<FakeStorage> {
  const bucket = new Bucket({ etag: options.etag });
  const server = await startHttpServer((request) => bucket.answer(request), options);
  const scheme = options.tls ? "https" : "http";
  const origin = options.publicHost ? `${scheme}://${options.publicHost}` : server.url;
  return extend(server, {
    log: bucket.log,
    faults: bucket.faults,
    get authorizations() {
      return bucket.log.filter((entry) => entry.headers.has("authorization"));
    },
    count: (filter: { method?: string; digest?: string } = {}) =>
      bucket.log.filter((entry) =>
        (entry.status === 200 || entry.status === 206) &&
        (filter.method === undefined || entry.method === filter.method) &&
        (filter.digest === undefined || entry.digest === filter.digest)
      ).length,
    sign: (method: string, content: Content, life?: number) =>
      origin + bucket.sign(method, content, life),
  });
}

/** The objects and signatures of one storage; a registry also uses it on its own origin. */
export class Bucket {
  readonly log: StorageEntry[] = [];
  readonly faults = new Faults();
  #signed = new Map<string, { method: string; content: Content; until: number }>();
  #next = 1;
  #etag: boolean;
  #refuseAuthorization: boolean;

  /** Both default to true. */
  constructor(options: { etag?: boolean; refuseAuthorization?: boolean } = {}) {
    this.#etag = options.etag ?? true;
    this.#refuseAuthorization = options.refuseAuthorization ?? true;
  }

  /** Path and query of a URL that gives `content` to `method`. */
  sign(method: string, content: Content, life = 300): string {
    const hex = content.digest.slice("sha256:".length);
    const signature = `s${this.#next++}`;
    this.#signed.set(signature, { method, content, until: Date.now() + life * 1000 });
    return `/storage/docker/registry/v2/blobs/sha256/${hex.slice(0, 2)}/${hex}/data` +
      `?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=${life}&X-Amz-Signature=${signature}`;
  }

  /** Answers one request and logs it. */
  answer(request: ServerRequest): ServerReply {
    const signed = this.#signed.get(request.url.searchParams.get("X-Amz-Signature") ?? "");
    const { method, target, headers } = request;
    const digest = signed?.content.digest;
    const entry: StorageEntry = { method, target, headers, digest, status: 0, bytes: 0 };
    this.log.push(entry);
    const fault = this.faults.next({ method, kind: "storage", reference: digest, headers });
    const reply = this.#reply(fault?.ignoreRange ? withoutRange(request) : request, signed);
    entry.status = fault?.status ?? reply.status;
    return {
      ...reply,
      fault,
      ended: (bytes, end) => {
        entry.bytes = bytes;
        entry.end = end;
      },
    };
  }

  #reply(
    request: ServerRequest,
    signed?: { method: string; content: Content; until: number },
  ): ServerReply {
    if (this.#refuseAuthorization && request.headers.has("authorization")) {
      return refuse(400, "InvalidArgument", "Only one auth mechanism allowed");
    }
    if (!signed || signed.method !== request.method) {
      return refuse(403, "SignatureDoesNotMatch", "The request signature does not match");
    }
    if (signed.until < Date.now()) return refuse(403, "AccessDenied", "Request has expired");
    return serveContent(request, signed.content, {
      headers: [["server", "AmazonS3"], ...typeHeaders(signed.content)],
      etag: this.#etag ? `"${signed.content.digest.slice(-32)}"` : undefined,
    });
  }
}

/** A registry that redirects manifests sends them to another registry, which says what they are. */
function typeHeaders(content: Content): [string, string][] {
  if (!content.mediaType.endsWith("+json") || content.mediaType.includes("config")) {
    return [["content-type", "application/octet-stream"]];
  }
  return [["content-type", content.mediaType], ["docker-content-digest", content.digest]];
}

function refuse(status: number, code: string, message: string): ServerReply {
  return {
    status,
    headers: [["content-type", "application/xml"]],
    body: `<Error><Code>${code}</Code><Message>${message}</Message></Error>`,
  };
}
