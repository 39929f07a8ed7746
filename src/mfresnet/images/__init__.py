"""Image ResNets trained in the mean-field way, and what is done to images on the device."""
