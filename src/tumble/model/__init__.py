"""The mathematics of the model, in torch alone: coordinates, distributions, networks, objectives."""
