"""A plugin of fusioncam with a method and a metric of a third party: NormGrad and sparseness."""
