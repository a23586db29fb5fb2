"""Many models, checkpoints and analyses as jobs of a Slurm cluster, taken up again after whatever kills them.

    python examples/sweep_on_slurm.py --models org/model --revisions step1000 step2000 --partition cpu
    python examples/sweep_on_slurm.py --cluster local     # the same code, as processes of this machine

Run it where `sbatch` is, with --folder on a file system that the nodes share. A second call does what is not done yet;
failed jobs keep their traceback in the folder, and `interp sweep retry FOLDER` does them again.
Needs the extra `slurm`: pip install submitit
"""

import argparse

import interp
from interp.batch import SweepFolder, plan, run

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--models", nargs="+", default=["smollm2-135m"])
parser.add_argument(
    "--revisions", nargs="*", default=[], help="branches, tags or commits of hub ids; steps of trainings"
)
parser.add_argument("--folder", default="sweep")
parser.add_argument("--cluster", default="slurm", choices=["slurm", "local"])
parser.add_argument("--partition")
parser.add_argument("--account")
parser.add_argument("--quick", action="store_true", help="two small planted models, on this machine")
asked = parser.parse_args()

if asked.quick:
    sweep = interp.Sweep(models=["planted:induction", "planted:ioi"], analyses=["composition"])
else:
    sweep = interp.Sweep(
        models=asked.models,
        revisions=asked.revisions,
        tasks=["ioi", "agreement"],
        analyses=["evaluate", {"name": "patch", "site": "z"}, {"name": "heads", "kinds": ["induction"]}],
        seeds=[0, 1],
    )

# What will be done, before anything is submitted. Jobs of one checkpoint are kept together: it is loaded once for them.
there = plan(sweep, asked.folder)
print(f"{len(there.specs)} jobs, {len(there.waiting())} to do")
cluster = "local" if asked.quick else asked.cluster
where = {"partition": asked.partition, "account": asked.account} if cluster == "slurm" else {}
print(run(sweep, asked.folder, executor="slurm", cluster=cluster, chunk=8, minutes=60, **where))

# Results are ordinary runs in a store: `store.open(id).results()` has the numbers.
for info in SweepFolder.open(asked.folder).store.list():
    print(info.id, info.tags["checkpoint"], info.tags["analysis"], info.status)
