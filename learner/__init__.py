"""The learner: advantages, losses, packing, the policy model and its ZeRO-3 rank actors."""
