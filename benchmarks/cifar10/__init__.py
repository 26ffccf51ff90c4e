"""The paper's CIFAR-10 case (Smith 2017, section 4.1), trained again."""
