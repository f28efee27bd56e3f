"""What the notebooks share: one module per job, each importing only from those before it in this list.

config, images, phantom, dataset, batches, model, training, evaluation, explain, plots, predict, app, report, run
"""
