"""What the notebooks share: one module per job, each importing only from those before it in this list.

config, images, anatomy, phantom, dataset, batches, model, activations, training, evaluation, explain, plots, predict,
app: the analysis. markup, report, kernel, provenance, plan, run: the runner and its pages. download: the public data.
"""
