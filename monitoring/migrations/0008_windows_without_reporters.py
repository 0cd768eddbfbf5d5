from django.db import migrations


class Migration(migrations.Migration):

    dependencies = [
        ('monitoring', '0007_reportings'),
    ]

    operations = [
        migrations.RemoveField(
            model_name='window',
            name='reporters',
        ),
    ]
