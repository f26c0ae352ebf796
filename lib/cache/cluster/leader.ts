/**
 * Which of several instances does for all what one is to do.
 *
 * @module
 */
import { UnreachableError } from "../store/blob_store.ts";
import type { Lease, Leases } from "./lease.ts";

/** One duty that an instance has until it ends, or loses its lease. */
export class Leader {
  readonly #leases: Pick<Leases, "acquire">;
  readonly #duty: string;
  #lease: Lease | undefined;
  #isClosed = false;
  #asking: Promise<boolean> | undefined;

  constructor(leases: Pick<Leases, "acquire">, duty: string) {
    this.#leases = leases;
    this.#duty = duty;
  }

  /**
   * Whether the duty is ours: it becomes so where nobody has it. False while nobody can be asked who has it. Throws what
   * Redis says.
   */
  isOurs(): Promise<boolean> {
    // One at a time: a lease that one of two took would be kept alive and belong to nobody.
    return this.#asking ??= this.#ask().finally(() => this.#asking = undefined);
  }

  async #ask(): Promise<boolean> {
    if (await this.#lease?.isHeld()) return true;
    await this.#leave();
    try {
      const taken = await this.#leases.acquire(this.#duty);
      if (!("lease" in taken)) return false;
      this.#lease = taken.lease;
    } catch (error) {
      if (error instanceof UnreachableError) return false;
      throw error;
    }
    if (this.#isClosed) await this.#leave();
    return !this.#isClosed;
  }

  /** Leaves the duty to another. Never throws. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#leave();
  }

  async #leave(): Promise<void> {
    await this.#lease?.release();
    this.#lease = undefined;
  }
}
