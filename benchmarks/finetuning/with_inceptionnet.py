"""This package without options: `inceptionnet train --weights`, with the time it may take."""

from common import arguments, command, trained

if __name__ == "__main__":
    job = arguments()
    given = ("--size", str(job.size), "--time", f"{job.minutes:g}m", "--seed", str(job.seed))
    command("train", job.images, "--weights", job.weights, "--out", "run", *given)
    trained(job, "weights of the last epoch")
    command("evaluate", "run", job.held_out, "--split", "all", "--predictions", "predictions.csv")
