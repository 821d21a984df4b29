"""The training loop, counted in iterations."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpm_lib import environment, evaluation
from cpm_lib.config import Config
from cpm_lib.data.loading import training_batches
from cpm_lib.errors import UserError
from cpm_lib.model import Detector, build_model
from cpm_lib.training import checkpoint, distributed, optimisation, run_folder, sharding
from cpm_lib.training.initialisation import initialise
from cpm_lib.training.interruption import StopRequests
from cpm_lib.training.journal import Journal
from cpm_lib.training.run_folder import RunFolder


def train(
    config: Config,
    dataset: Any,
    out: str | Path,
    *,
    val: Any = None,
    seed: int = 0,
    init: str | Path | None = None,
    model: Detector | None = None,
    resume: bool = False,
    workers: int = 0,
    device: str | torch.device | None = None,
    log_every: int = 20,
    quiet: bool = False,
    tensorboard: bool = False,
) -> Path:
    """Train the detector of `config` on a `DetectionDataset` and return the path of `final.safetensors`.

    On the CPU the same arguments give the same `metrics.jsonl`, byte by byte, and the same weights,
    also when the run was interrupted and resumed.
    Under torchrun each process takes its share of `solver.images_per_batch`; how many there are changes nothing
    but rounding, as long as the backbone's norms are frozen and the conventions are `corrected`.

    Args:
        out: run folder, made if missing.
        val: data set for the evaluations: at the end, and each `solver.evaluate_every` iterations.
        seed: of the new weights, the order and augmentation of the data, and the sampling.
        init: checkpoint or run whose tensors are taken over where name, shape and classes match.
        model: the detector to train, made for `config`; None builds one.
        resume: continue the run in `out` exactly; start it if there is nothing to continue.
        workers: processes per training process that read images; 0 reads in the training process.
        device: e.g. "cuda"; None means a GPU if there is one.
        log_every: iterations between two lines on the console and in `timing.jsonl`.
        quiet: print nothing.
        tensorboard: also write the records as curves below RUN/tensorboard.

    Raises:
        UserError: unusable folder, other settings than the run to resume, unsuitable `init`, non-finite
            loss (a dump is left in the run folder), full disk.
        Interrupted: Ctrl-C or SIGTERM; the run was saved and can be resumed.
    """
    place = distributed.start(device)
    folder = RunFolder(out, tensorboard=tensorboard)
    distributed.on_main(lambda: folder.check(resume))
    torch.manual_seed(seed)
    model = build_model(config, len(dataset.classes) + 1) if model is None else model
    journal = Journal(folder, config.solver, place, source=dataset.name, log_every=log_every, quiet=quiet)
    run = _Run(config, dataset, val, folder, model.to(place), journal, seed=seed, workers=workers)
    done = 0
    if resume:
        done = run.resume(init)
    if not done and init is not None:
        journal.say(*initialise(model, init, dataset.classes))
    distributed.on_main(lambda: folder.begin(run.description(init), done))
    processes = distributed.on_main(lambda: folder.read()["processes"])
    if processes != distributed.world():
        journal.say(f"begun in {processes} processes, going on in {distributed.world()}: the same run up to rounding")
    hint = f"interrupted; the run is saved, continue it with --resume and otherwise the same settings (run: {out})"
    with StopRequests(hint) as stops:
        run.loop(done, stops)
        distributed.on_main(lambda: checkpoint.save_weights(folder.final, model, run.card(config.solver.iterations)))
        run.evaluate(config.solver.iterations, stops)
    journal.say(f"trained {config.solver.iterations} iterations: {folder.final}")
    return folder.final


class _Run:
    """The state of a training run between two iterations."""

    def __init__(
        self,
        config: Config,
        dataset: Any,
        val: Any,
        folder: RunFolder,
        model: Any,
        journal: Journal,
        *,
        seed: int,
        workers: int,
    ) -> None:
        solver, world = config.solver, distributed.world()
        if solver.images_per_batch % (world * solver.accumulate):
            parts = f" with {solver.accumulate} parts each (solver.accumulate)" if solver.accumulate > 1 else ""
            raise UserError(
                f"solver.images_per_batch {solver.images_per_batch} is no multiple of {world} processes{parts}"
            )
        self.config, self.dataset, self.val = config, dataset, val
        self.folder, self.journal, self.device = folder, journal, journal.device
        self.seed, self.workers = seed, workers
        self.model = model.train()
        self.optimiser = optimisation.build_optimiser(model, solver)
        self.trainable = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.network = distributed.wrap(model, self.device)
        self._card: checkpoint.Card | None = None

    def loop(self, done: int, stops: StopRequests) -> None:
        """Iterations `done` + 1 to the last, with everything that happens between them."""
        solver, journal = self.config.solver, self.journal
        batches = training_batches(
            self.dataset,
            self.config,
            seed=self.seed,
            start=done,
            stop=solver.iterations,
            workers=self.workers,
            rank=distributed.rank(),
            world=distributed.world(),
            pin=self.device.type == "cuda",
        )
        requests = distributed.AnyProcess()
        self.evaluate_if_due(done, stops)
        journal.start(done)
        for iteration in range(done + 1, solver.iterations + 1):
            waiting = time.perf_counter()
            images, targets = next(batches)
            journal.data_s += time.perf_counter() - waiting
            self.step(iteration, images, targets)
            last = iteration == solver.iterations
            save = last or iteration % max(solver.checkpoint_every, 1) == 0
            # Several processes must stop after the same iteration.
            stop = requests.ask(stops.received or 0)
            if save or stop or iteration % journal.flush_every == 0:
                journal.flush()
            journal.tick(iteration, last=last or bool(stop))
            if save or stop:
                self.save(iteration)
            if stop and not last:
                raise stops.interruption(stop)
            self.evaluate_if_due(iteration, stops)
        requests.close()

    def step(self, iteration: int, images: list[Tensor], targets: list[dict[str, Any]]) -> None:
        """One iteration: forward, backward, update.

        Raises:
            UserError: a loss is not finite; the weights are untouched (CPU, one process).
        """
        solver = self.config.solver
        lr = optimisation.learning_rate(solver, iteration)
        optimisation.set_learning_rate(self.optimiser, lr)
        self.optimiser.zero_grad(set_to_none=True)
        size = len(images) // solver.accumulate
        parts = []
        for first in range(0, len(images), size):
            part = slice(first, first + size)
            last = first + size == len(images)
            with distributed.exchanging_gradients(self.network, last):
                losses = self.losses(iteration, lr, images[part], targets[part])
                (torch.stack(list(losses.values())).sum() / solver.accumulate).backward()
            parts.append({name: value.detach() for name, value in losses.items()})
        means = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        self.journal.add(iteration, lr, {"loss": torch.stack(list(means.values())).sum(), **means}, targets)
        if solver.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.trainable, solver.clip_norm)
        self.optimiser.step()

    def losses(
        self, iteration: int, lr: float, images: list[Tensor], targets: list[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """The forward pass of one part of the batch, with the samples of this iteration."""
        self.model.sampling.set(self.seed, iteration)
        try:
            with environment.autocast(self.device, self.config.solver.precision):
                losses = self.network(images, targets)
        except (ValueError, RuntimeError, IndexError):
            # Boxes that are not numbers can break the forward pass before there is any loss to look at.
            if distributed.world() == 1 and not self.is_finite():
                self.journal.flush()  # may already know the earlier iteration that went wrong
                self.journal.add(iteration, lr, {"loss": torch.tensor(math.nan, device=self.device)}, targets)
                self.journal.flush()
            raise
        return {name: value.float() for name, value in losses.items()}

    def is_finite(self) -> bool:
        """Whether all weights are finite numbers."""
        return math.isfinite(float(torch.nn.utils.get_total_norm([p.detach() for p in self.trainable])))

    def save(self, iteration: int) -> None:
        """A checkpoint to resume from.

        Raises:
            UserError: the weights are not finite, or the disk is full.
        """
        if not self.is_finite():
            raise UserError(
                f"iteration {iteration}: the weights are not finite; lower solver.lr or set solver.clip_norm"
            )

        def write() -> None:
            cuda = self.device.type == "cuda"
            state = {
                "iteration": iteration,
                "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "random": {
                    "cpu": torch.get_rng_state(),
                    "cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
                },
                "card": self.card(iteration).metadata(),
                "metrics_size": self.folder.metrics_size(),
                "wall_s": self.journal.wall_s,
                "data_s": self.journal.data_s,
            }
            checkpoint.save_state(self.folder.path, iteration, state, keep=self.config.solver.checkpoints_kept)

        distributed.on_main(write)

    def resume(self, init: str | Path | None) -> int:
        """Take over the newest checkpoint of the run folder; returns the iterations done, 0 if none is there.

        Raises:
            UserError: the run was made with other settings, or all its checkpoints are damaged.
        """
        folder = self.folder
        distributed.on_main(lambda: folder.compare(self.description(init)) if folder.holds_run() else None)
        found = distributed.on_main(lambda: checkpoint.newest_state(folder.path))
        if found is None:
            self.journal.say(f"{folder.path}: no checkpoint yet, starting at iteration 1")
            distributed.on_main(lambda: folder.rewind(0, 0))
            return 0
        path, messages = found
        for message in messages:
            self.journal.say(message)
        state = checkpoint.read_state(path)
        checkpoint.fit(self.model, state["model"], path)
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda" and state["random"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["random"]["cuda"], self.device)
        self.journal.wall_s, self.journal.data_s = float(state["wall_s"]), float(state["data_s"])
        done = int(state["iteration"])
        distributed.on_main(lambda: folder.rewind(done, int(state["metrics_size"])))
        self.journal.say(f"{folder.path}: resuming after iteration {done}")
        return done

    def evaluate_if_due(self, iteration: int, stops: StopRequests) -> None:
        every = self.config.solver.evaluate_every
        if every and iteration and iteration % every == 0 and iteration < self.config.solver.iterations:
            self.evaluate(iteration, stops)

    def evaluate(self, iteration: int, stops: StopRequests) -> None:
        """Evaluate on the validation data and write the result down, once for each iteration number."""
        if self.val is None or distributed.on_main(lambda: self.is_evaluated(iteration)):
            return
        stop = max(number or 0 for number in distributed.gather(stops.received))
        if stop:
            raise stops.interruption(stop)
        began = time.perf_counter()
        # The weights are saved already: nothing is lost by stopping at once.
        stops.at_once = True
        detections = sharding.predict(self.model, self.val, device=self.device, workers=self.workers)

        def write() -> None:
            metrics = evaluation.evaluate(detections, self.val, self.val.area_limits)
            self.folder.append("evaluations", [{"iteration": iteration, "data": self.val.name, **metrics}])
            shown = "  ".join(f"{name} {value:.1f}" for name, value in metrics.items() if isinstance(value, float))
            self.journal.say(f"iteration {iteration}  {self.val.name}  {shown}")

        distributed.on_main(write)
        stops.at_once = False
        self.journal.leave_out(time.perf_counter() - began)

    def is_evaluated(self, iteration: int) -> bool:
        return any(row["iteration"] == iteration for row in self.folder.records("evaluations"))

    def card(self, iterations: int) -> checkpoint.Card:
        """The card of a checkpoint made now; fingerprint and source state are those of the start."""
        if self._card is None:
            git = environment.git_state()
            self._card = checkpoint.Card(
                config=self.config,
                classes=tuple(self.dataset.classes),
                data=self.dataset.name,
                fingerprint=self.dataset.fingerprint(),
                seed=self.seed,
                git="" if git["sha"] is None else git["sha"] + ("+dirty" if git["dirty"] else ""),
            )
        return dataclasses.replace(self._card, iterations=iterations)

    def description(self, init: str | Path | None) -> dict[str, Any]:
        return run_folder.describe(self.config, self.dataset, self.val, seed=self.seed, init=init, device=self.device)
