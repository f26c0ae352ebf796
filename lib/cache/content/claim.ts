/**
 * The right to publish what is downloaded, where several instances share a store.
 *
 * @module
 */

/** A right to publish. */
export interface Claim {
  /** Whether the draft should go ahead to the store while it grows. */
  readonly isOurs: () => boolean;
  /** Whether what was downloaded may be published by us. Asked at the end; it may take some time, but not beyond `closing`. */
  mayPublish(closing?: Promise<void>): Promise<boolean>;
  release(): Promise<void>;
}
