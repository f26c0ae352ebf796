/**
 * Tags by which something is attached to a manifest: cosign's signatures, and lists of referrers where a registry
 * has no API for them. Clients ask for all that there might be, so that "there is none" has to be known too
 * while upstream is away: else what is signed cannot be verified, and what is not cannot be listed.
 *
 * @module
 */
import { subjectOf } from "../oci/attachment_tag.ts";
import type { Answer } from "../response/answer.ts";
import { OciError } from "../oci/error.ts";
import type { TargetRequest } from "../upstream/passthrough.ts";
import { type RegistryClient, repositoryKey } from "../upstream/registry_client.ts";
import { NOTES } from "./index/referrers_note.ts";
import type { BestEffortIndex } from "./index/best_effort_index.ts";

/** Options for {@linkcode Attachments}. */
export interface AttachmentsOptions {
  readonly index: BestEffortIndex;
  readonly asker: Pick<RegistryClient, "mayServeStale">;
  /** @default {Date.now} */
  readonly now?: () => number;
}

/** What is known not to be attached. */
export class Attachments {
  readonly #index: BestEffortIndex;
  readonly #asker: AttachmentsOptions["asker"];
  readonly #now: () => number;

  constructor(options: AttachmentsOptions) {
    this.#index = options.index;
    this.#asker = options.asker;
    this.#now = options.now ?? Date.now;
  }

  /** What `next` answers for a manifest, or 404 for what upstream did not have when it could be asked. */
  async answer(request: TargetRequest, next: () => Promise<Answer>): Promise<Answer> {
    const { target } = request;
    const subject = subjectOf(target.reference);
    if (subject === undefined) return await next();
    try {
      return await next();
    } catch (error) {
      if (await this.#isAbsent(request, error)) {
        throw new OciError("MANIFEST_UNKNOWN", "There was none when upstream could be asked");
      }
      if (error instanceof OciError && error.status === 404) await this.#note(request, subject);
      throw error;
    }
  }

  async #note({ target }: TargetRequest, subject: string): Promise<void> {
    const key = repositoryKey(target);
    // Only about what is here: anybody can ask about digests that nobody has.
    if (!await this.#index.link({ ...key, digest: subject, kind: "manifest" })) return;
    // It goes with its subject.
    const note = { digest: subject, checkedAt: this.#now() };
    await this.#index.setTag(key, noteOf(target.reference), note);
  }

  /** Whether it was absent when upstream could last be asked, and `error` is that it cannot be now. */
  async #isAbsent(request: TargetRequest, error: unknown): Promise<boolean> {
    const { target } = request;
    return await this.#asker.mayServeStale(request, { error }) &&
      await this.#index.tag(repositoryKey(target), noteOf(target.reference)) !== undefined;
  }
}

function noteOf(tag: string): string {
  return `${NOTES}absent/${tag}`;
}
